//! Deployments, ReplicaSets, Pods and EndpointSlices, and the kubelet that makes Pods processes.
