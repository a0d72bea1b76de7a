//! The one Node that all pods run on.

use serde_json::json;

use crate::store::{Key, Store, seconds};

/// The node's name.
pub const NAME: &str = "serin-lab";

/// The node's address, and every pod's `hostIP`.
pub const ADDRESS: &str = "127.0.0.1";

/// Makes the Node object, if it is not there.
pub fn register(store: &Store) {
    let now = seconds((store.clock())());
    let cpus = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    let resources = json!({"cpu": cpus, "memory": "16Gi", "pods": "65000"});
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
               "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"labels": {
            "kubernetes.io/hostname": NAME, "kubernetes.io/os": std::env::consts::OS, "kubernetes.io/arch": arch,
            "node-role.kubernetes.io/lab": "",
        }},
        "spec": {},
        "status": {
            "capacity": resources, "allocatable": resources,
            "addresses": [{"type": "InternalIP", "address": ADDRESS}, {"type": "Hostname", "address": NAME}],
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "the lab does not watch memory"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "the lab does not watch disks"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "the lab does not watch processes"),
                condition("Ready", "True", "KubeletReady", "pods are processes of this machine"),
            ],
            "nodeInfo": {
                "architecture": arch, "operatingSystem": std::env::consts::OS, "osImage": "serin lab: processes, no containers",
                "containerRuntimeVersion": "serin://0.1.0", "kubeletVersion": "v1.35.0-serin-lab", "kubeProxyVersion": "",
                "kernelVersion": "", "machineID": "", "systemUUID": "", "bootID": "",
            },
        },
    });
    // There already: a lab that goes on with an old store.
    let _ = store.create(&Key::cluster("", "nodes", NAME), node);
}
