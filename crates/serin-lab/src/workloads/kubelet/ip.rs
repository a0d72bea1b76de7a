//! Pod addresses: one /16 of 127.0.0.0/8 per lab, held as long as the lab lives.
//!
//! The lock is a UDP socket bound in the block: the kernel gives it to one process of the machine (of the network namespace,
//! which is what the addresses belong to), whoever its user is, and takes it back when the process ends, however it ends.
//! A lock file would have to live where all users can write.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

/// Bound on 127.X.0.1 by the lab that holds block X. Any number does; it must be the same in all labs.
const LOCK_PORT: u16 = 15_998;

/// First and number of the blocks: 127.0.0.0/16 is everybody's, and some tools use the next few.
const BLOCKS: (u8, u8) = (16, 224);

/// Why no block could be had.
#[derive(Debug, thiserror::Error)]
pub enum IpError {
    /// The system has 127.0.0.1 alone, as macOS.
    #[error(
        "pods need addresses such as 127.{block}.0.2, and this system has 127.0.0.1 alone; \
         give it some, e.g. `for i in $(seq 1 40); do sudo ifconfig lo0 alias 127.{block}.0.$i up; done`"
    )]
    NoBlocks {
        /// The second number of the addresses asked for.
        block: u8,
    },
    /// As many labs run as there are blocks.
    #[error("all {0} blocks of pod addresses are taken by other labs")]
    AllTaken(u8),
    /// Something else refuses.
    #[error("bind 127.{block}.0.1: {error}")]
    Refused {
        /// The block tried.
        block: u8,
        /// The system's reason.
        error: std::io::Error,
    },
}

/// The addresses of one lab; clones share them. Dropping the last one frees the block.
#[derive(Clone)]
pub struct PodIps(Arc<Pool>);

struct Pool {
    block: u8,
    _lock: UdpSocket,
    used: Mutex<Used>,
}

struct Used {
    taken: BTreeSet<u16>,
    last: u16,
}

/// One address; free again when dropped.
pub struct PodIp {
    ip: Ipv4Addr,
    pool: PodIps,
}

impl PodIps {
    /// Takes a block that no other lab has.
    ///
    /// # Errors
    /// When none can be had; the message says what to do.
    pub fn claim() -> Result<Self, IpError> {
        let (first, n) = BLOCKS;
        // Labs start at different blocks, so that one that follows another closely does not meet its dying connections.
        let start = u8::try_from(std::process::id() % u32::from(n)).unwrap_or(0);
        for offset in 0..n {
            let block = first + u8::try_from((u16::from(start) + u16::from(offset)) % u16::from(n)).unwrap_or(0);
            match UdpSocket::bind((Ipv4Addr::new(127, block, 0, 1), LOCK_PORT)) {
                Ok(lock) => {
                    let used = Mutex::new(Used { taken: BTreeSet::new(), last: 1 });
                    return Ok(Self(Arc::new(Pool { block, _lock: lock, used })));
                }
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
                    return Err(IpError::NoBlocks { block });
                }
                Err(error) => return Err(IpError::Refused { block, error }),
            }
        }
        Err(IpError::AllTaken(n))
    }

    /// An address that nobody has, the one that was free for longest; `None` when all 65,000 are taken.
    pub fn take(&self) -> Option<PodIp> {
        let mut used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        // .0.0 and .0.1 stay free, and .255.255, which a broadcast would be.
        let order = (used.last + 1..u16::MAX).chain(2..=used.last);
        let host = order.into_iter().find(|host| !used.taken.contains(host))?;
        used.taken.insert(host);
        used.last = host;
        let [high, low] = host.to_be_bytes();
        Some(PodIp { ip: Ipv4Addr::new(127, self.0.block, high, low), pool: self.clone() })
    }

    /// The first address of the block, for listeners of the lab itself; no pod gets it.
    pub fn own(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.0.block, 0, 1)
    }
}

impl PodIp {
    /// The address.
    pub fn addr(&self) -> Ipv4Addr {
        self.ip
    }
}

impl Drop for PodIp {
    fn drop(&mut self) {
        let [_, _, high, low] = self.ip.octets();
        let mut used = self.pool.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.taken.remove(&u16::from_be_bytes([high, low]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_labs_never_share_an_address_and_a_freed_one_is_used_last() {
        let (a, b) = (PodIps::claim().unwrap(), PodIps::claim().unwrap());
        assert_ne!(a.own(), b.own());
        let first = a.take().unwrap();
        let addr = first.addr();
        let second = a.take().unwrap();
        assert_ne!(addr, second.addr());
        drop(first);
        assert_ne!(a.take().unwrap().addr(), addr);
    }

    #[test]
    fn a_block_is_free_when_its_lab_is_gone() {
        let lab = PodIps::claim().unwrap();
        let block = lab.own();
        assert!(UdpSocket::bind((block, LOCK_PORT)).is_err());
        drop(lab);
        assert!(UdpSocket::bind((block, LOCK_PORT)).is_ok());
    }
}
