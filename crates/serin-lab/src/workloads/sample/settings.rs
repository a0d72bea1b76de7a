//! What the sample app reads from its environment: where it listens, who it is, and which faults it plays.
//!
//! Parsing is pure: names and values in, settings or one sentence out. A value that cannot be read stops the app,
//! because a fault that silently does not happen makes every test of a canary pass.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::draw::{Delay, Share};

/// Everything that is fixed when the app starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The address to listen on: the pod's.
    pub ip: IpAddr,
    /// The ports to listen on; none means that the app only waits for its end, like a helper container.
    pub ports: Vec<u16>,
    /// What it answers as its version.
    pub version: String,
    /// What it answers as its pod.
    pub pod: String,
    /// Seed of all draws.
    pub seed: u64,
    /// How long it goes on accepting after SIGTERM, at least.
    pub drain: Duration,
    /// Ends with exit code 1 this long after its start.
    pub crash_after: Option<Duration>,
    /// Not ready for this long after its start.
    pub not_ready: Option<NotReady>,
    /// What goes wrong per request.
    pub faults: Faults,
}

/// How long the app says that it is not ready.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NotReady {
    /// As long as it runs.
    Always,
    /// For this long after its start.
    For(Duration),
}

/// What goes wrong per request; may be changed while the app runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Faults {
    /// Share of requests that are answered with `error_status`.
    pub error_rate: Share,
    /// HTTP status of an error, 400 to 599.
    pub error_status: u16,
    /// Added to each request.
    pub latency: Delay,
    /// Share of requests that take `slow_by` longer.
    pub slow_rate: Share,
    /// What a slow request takes on top.
    pub slow_by: Delay,
    /// Faults begin this long after the start.
    pub after: Duration,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            error_rate: Share::NONE,
            error_status: 500,
            latency: Delay::None,
            slow_rate: Share::NONE,
            slow_by: Delay::Fixed(Duration::from_secs(1)),
            after: Duration::ZERO,
        }
    }
}

impl Settings {
    /// Reads the settings. `get` looks a variable up; an empty value counts as not set.
    ///
    /// # Errors
    /// One sentence that names the variable, its value and what would be right.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let ip = match get("POD_IP") {
            Some(text) => text.trim().parse().map_err(|_| wrong("POD_IP", &text, "an IP address"))?,
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let pod = get("POD_NAME").unwrap_or_else(|| "sample".into());
        let seed = match get("SEED") {
            Some(text) => text.trim().parse().map_err(|_| wrong("SEED", &text, "a whole number"))?,
            // Pods of one Deployment should not fail in step.
            None => super::draw::hash(pod.as_bytes()),
        };
        let not_ready = match get("NOT_READY") {
            None => None,
            Some(text) => match boolean(&text) {
                Some(true) => Some(NotReady::Always),
                Some(false) => None,
                None => {
                    Some(NotReady::For(duration(&text).ok_or_else(|| wrong("NOT_READY", &text, "true, false, or a time such as 10s"))?))
                }
            },
        };
        let time = |name: &str| match get(name) {
            None => Ok(None),
            Some(text) => duration(&text).map(Some).ok_or_else(|| wrong(name, &text, "a time such as 30s or 500ms")),
        };
        let mut faults = Faults::default();
        for name in Faults::NAMES {
            if let Some(value) = get(name) {
                faults.set(name, &value)?;
            }
        }
        Ok(Self {
            ip,
            ports: ports(get("PORTS"), get("PORT"))?,
            version: get("VERSION").unwrap_or_else(|| "unknown".into()),
            pod,
            seed,
            drain: time("DRAIN")?.unwrap_or(DRAIN),
            crash_after: time("CRASH_AFTER")?,
            not_ready,
            faults,
        })
    }
}

/// Long enough for every proxy to learn that the pod is leaving; a weight change takes some 50 ms, so this is ample,
/// and at double it each rolling update would take visibly longer.
const DRAIN: Duration = Duration::from_secs(2);

impl Faults {
    /// The variables that may be set at the start, and later by `POST /fault`.
    pub const NAMES: [&str; 8] = ["ERROR_RATE", "ERROR_STATUS", "LATENCY_MS", "LATENCY", "SLOW_RATE", "SLOW_MS", "SLOW_BY", "FAULT_AFTER"];

    /// Sets one of [`Self::NAMES`].
    ///
    /// # Errors
    /// One sentence that says what would be right.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let share = || value.parse::<Share>().map_err(|()| wrong(name, value, "a share such as 5%, 0.05 or 1"));
        let delay =
            || value.parse::<Delay>().map_err(|()| wrong(name, value, "a time such as 20ms, a range such as 10ms-50ms, or exp:20ms"));
        let millis = || match value.trim().parse::<f64>() {
            Ok(ms) if ms.is_finite() && (0.0..=86_400_000.0).contains(&ms) => Ok(Delay::Fixed(Duration::from_secs_f64(ms / 1000.0))),
            _ => Err(wrong(name, value, "a number of milliseconds")),
        };
        match name {
            "ERROR_RATE" => self.error_rate = share()?,
            "ERROR_STATUS" => {
                self.error_status = value
                    .trim()
                    .parse()
                    .ok()
                    .filter(|status| (400..=599).contains(status))
                    .ok_or_else(|| wrong(name, value, "an HTTP status from 400 to 599"))?;
            }
            "LATENCY_MS" => self.latency = millis()?,
            "LATENCY" => self.latency = delay()?,
            "SLOW_RATE" => self.slow_rate = share()?,
            "SLOW_MS" => self.slow_by = millis()?,
            "SLOW_BY" => self.slow_by = delay()?,
            "FAULT_AFTER" => self.after = duration(value).ok_or_else(|| wrong(name, value, "a time such as 20s"))?,
            _ => return Err(format!("{name} is no fault of the sample app: it knows {}", Self::NAMES.join(", "))),
        }
        Ok(())
    }
}

/// `PORTS=8080,9090` goes before `PORT=8080`; `PORT=0` or neither means 8080 or none at all respectively.
fn ports(list: Option<String>, one: Option<String>) -> Result<Vec<u16>, String> {
    let Some(list) = list.or(one) else {
        return Ok(vec![8080]);
    };
    let mut ports = Vec::new();
    for text in list.split(',').map(str::trim).filter(|t| !t.is_empty()) {
        match text.parse::<u16>() {
            Ok(0) => {}
            Ok(port) if ports.contains(&port) => {}
            Ok(port) => ports.push(port),
            Err(_) => return Err(wrong("PORT", &list, "a port number")),
        }
    }
    Ok(ports)
}

/// `30s`, `500ms`, `1m30s`; a bare number is seconds.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let parsed: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(parsed).ok()
}

fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn wrong(name: &str, value: &str, right: &str) -> String {
    format!("{name}={value:?} is not {right}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::read(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn nothing_set_is_a_healthy_app() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.faults, Faults::default());
        assert_eq!(settings.ports, [8080]);
        assert_eq!(settings.not_ready, None);
    }

    #[test]
    fn faults_are_read_in_each_spelling() {
        let half = read(&[("ERROR_RATE", "50%")]).unwrap().faults.error_rate;
        assert_eq!(half, read(&[("ERROR_RATE", "0.5")]).unwrap().faults.error_rate);
        let settings = read(&[
            ("LATENCY_MS", "20"),
            ("NOT_READY", "10s"),
            ("CRASH_AFTER", "1m30s"),
            ("FAULT_AFTER", "20"),
            ("ERROR_STATUS", "503"),
            ("PORTS", "8080, 9090,8080"),
            ("SEED", "7"),
        ])
        .unwrap();
        assert_eq!(settings.faults.latency, Delay::Fixed(Duration::from_millis(20)));
        assert_eq!(settings.not_ready, Some(NotReady::For(Duration::from_secs(10))));
        assert_eq!(settings.crash_after, Some(Duration::from_secs(90)));
        assert_eq!(settings.faults.after, Duration::from_secs(20));
        assert_eq!(settings.faults.error_status, 503);
        assert_eq!(settings.ports, [8080, 9090]);
        assert_eq!(settings.seed, 7);
    }

    #[test]
    fn an_unreadable_value_is_named_with_what_would_be_right() {
        for (name, value) in [
            ("ERROR_RATE", "half"),
            ("ERROR_RATE", "150%"),
            ("ERROR_STATUS", "200"),
            ("LATENCY", "soon"),
            ("LATENCY_MS", "-1"),
            ("NOT_READY", "maybe"),
            ("CRASH_AFTER", "-3s"),
            ("PORT", "http"),
            ("SEED", "x"),
            ("POD_IP", "here"),
        ] {
            let message = read(&[(name, value)]).unwrap_err();
            assert!(message.starts_with(name) && message.contains(value), "{message}");
        }
    }
}
