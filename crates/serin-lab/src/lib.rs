//! A small mesh in one process: a Kubernetes API, processes as pods, and a real Envoy.
//!
//! Reading order: `store` (objects), `api` (how clients reach them), `workloads` (Deployments become processes),
//! `mesh` (routes become Envoy's), `lab` (all of it started together). It knows nothing of Serin's other crates:
//! it reads the CRDs' YAML as any API server does.

pub mod api;
pub mod lab;
pub mod mesh;
pub mod store;
pub mod workloads;
