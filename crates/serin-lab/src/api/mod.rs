//! The Kubernetes API over the store: REST, discovery, schemas, tables.
