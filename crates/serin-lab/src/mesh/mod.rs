//! VirtualServices and DestinationRules as Envoy configuration, Envoy itself, its telemetry, and traffic.
