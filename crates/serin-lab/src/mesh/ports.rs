//! Real ports for Envoy's listeners, kept for as long as the mesh runs.
//!
//! A port is held by a socket that is bound and never listens: Envoy can bind it as well, and the kernel gives it to nobody
//! else, neither before Envoy has taken it nor while Envoy is started again. Deliberately knows no Envoy.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

use super::listeners;
use super::session::Snapshot;
use super::translate::{self, Caller, Complaint, OUTBOUND};
use super::world::World;
use super::{CALLER, GATEWAY};

/// A port of the kernel's choice on loopback.
pub(super) struct Held {
    /// Where it is.
    pub(super) address: SocketAddr,
    _socket: TcpSocket,
}

impl Held {
    /// Takes a port that is free.
    pub(super) fn take() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        // With both, others of this user may bind the port beside this socket: Envoy's admin asks for the first, its listeners for the second.
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self { address: socket.local_addr()?, _socket: socket })
    }
}

/// The ports of one mesh: they stay once they are given.
pub(super) struct Ports {
    outbound: Held,
    gateways: BTreeMap<String, Held>,
}

impl Ports {
    pub(super) fn take() -> io::Result<Self> {
        Ok(Self { outbound: Held::take()?, gateways: BTreeMap::new() })
    }

    /// Where callers inside the mesh call.
    pub(super) fn outbound(&self) -> SocketAddr {
        self.outbound.address
    }

    /// Ports of Gateways, by `namespace/name:port`.
    pub(super) fn gateways(&self) -> BTreeMap<String, SocketAddr> {
        self.gateways.iter().map(|(name, held)| (name.clone(), held.address)).collect()
    }

    /// The whole configuration, and what of the objects it leaves out. Gateways that are new get a port; the others keep theirs.
    pub(super) fn snapshot(&mut self, world: &World) -> io::Result<(Snapshot, Vec<Complaint>)> {
        let caller = Caller::new(CALLER.0, CALLER.1, self.outbound.address.port());
        let gateway = Caller::new(GATEWAY.0, GATEWAY.1, 0);
        let (resources, complaints) = translate::translate(world, &caller, &gateway);
        let mut listeners = BTreeMap::new();
        listeners.insert(OUTBOUND.to_string(), listeners::listener(OUTBOUND, self.outbound.address, CALLER));
        let mut known = BTreeMap::new();
        for server in &resources.servers {
            let key = format!("{}:{}", server.gateway, server.port);
            let held = match self.gateways.remove(&key) {
                Some(held) => held,
                None => Held::take()?,
            };
            listeners.insert(server.name.clone(), listeners::listener(&server.name, held.address, GATEWAY));
            known.insert(key, held);
        }
        self.gateways = known;
        Ok((Snapshot { resources, listeners, version: world.version }, complaints))
    }
}
