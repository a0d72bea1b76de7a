//! Which command plays an image: the ConfigMap `kube-system/lab-images`, read whenever a container starts.
//!
//! Its data has any keys; each line of each value is `GLOB=COMMAND ARGS` (keys in their order, the first fitting line
//! counts, `#` starts a comment line). `*` in a glob stands for anything, `?` for one character; a glob without `/` is
//! compared with the last part of the image's name. Words are split as a shell splits them, without being run by one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::object::{items, text};
use crate::store::{Key, Store, StoreError, Write};

/// Where the mapping is kept.
pub fn key() -> Key {
    Key::namespaced("", "configmaps", "kube-system", "lab-images")
}

/// Writes mappings given on the command line, if the map is not there yet; else adds those it lacks under their own key.
pub fn seed(store: &Store, images: &[String]) {
    let lines = images.join("\n");
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"annotations": {"serin.dev/about": "each line: GLOB=COMMAND ARGS; takes effect when a container starts"}},
        "data": {"images": lines},
    });
    if store.create(&key(), map).is_err() && !images.is_empty() {
        let added = store.update(&key(), Write::Whole, |map| {
            let mut map = map.clone();
            map["data"]["command-line"] = lines.as_str().into();
            Ok::<_, StoreError>(map)
        });
        if let Err(error) = added {
            tracing::warn!(%error, "add images of the command line to kube-system/lab-images");
        }
    }
}

/// Who plays a container.
#[derive(Clone, Debug, PartialEq)]
pub enum Player {
    /// The built-in sample app, and why.
    Sample(Why),
    /// A command.
    Command {
        /// Program and arguments, variables not yet filled in.
        words: Vec<String>,
        /// Where it comes from.
        from: From,
    },
}

/// Where a command comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum From {
    /// The image's mapping.
    Images,
    /// The container's own `command`.
    Manifest,
}

/// Why the sample app plays a container.
#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    /// No mapping fits its image.
    UnknownImage,
    /// The manifest's command may not run.
    CommandRefused,
    /// A mapping fits, and cannot be read.
    BadMapping(String),
}

/// Chooses who plays a container.
pub fn player(map: Option<&Value>, container: &Value, exec: bool) -> Player {
    let words = |field: &str| items(container, field).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let command = words("/command");
    let args = words("/args");
    if exec && !command.is_empty() {
        return Player::Command { words: [command, args].concat(), from: From::Manifest };
    }
    let lines: BTreeMap<&String, &str> =
        map.and_then(|m| m["data"].as_object()).into_iter().flatten().filter_map(|(k, v)| Some((k, v.as_str()?))).collect();
    for line in lines.values().flat_map(|value| value.lines()).map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((glob, command)) = line.split_once('=') else { continue };
        if !fits(glob.trim(), text(container, "/image")) {
            continue;
        }
        return match split(command) {
            Ok(mut words) if !words.is_empty() => {
                // Arguments of a manifest are its own command line: they count as one.
                if exec {
                    words.extend(args);
                }
                Player::Command { words, from: From::Images }
            }
            Ok(_) => Player::Sample(Why::BadMapping(format!("{line:?} names no command"))),
            Err(error) => Player::Sample(Why::BadMapping(format!("{line:?}: {error}"))),
        };
    }
    Player::Sample(if command.is_empty() { Why::UnknownImage } else { Why::CommandRefused })
}

/// Whether an image fits a glob. Without a tag or digest in the glob, any tag fits.
fn fits(glob: &str, image: &str) -> bool {
    let image = if glob.contains('/') { image } else { image.rsplit('/').next().unwrap_or(image) };
    wild(glob.as_bytes(), image.as_bytes()) || !last(glob).contains([':', '@', '*']) && wild(glob.as_bytes(), without_tag(image).as_bytes())
}

fn last(image: &str) -> &str {
    image.rsplit('/').next().unwrap_or(image)
}

fn without_tag(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    match image.rsplit_once(':') {
        // A colon before a slash is a registry's port.
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

/// The tag of an image; `latest` without one.
pub fn tag(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    match image.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') && !tag.is_empty() => tag,
        _ => "latest",
    }
}

fn wild(glob: &[u8], text: &[u8]) -> bool {
    // The last star, and how much of the text it has swallowed: on a mismatch it swallows one more.
    let (mut g, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g, t));
                g += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                g += 1;
                t += 1;
            }
            _ => match star {
                Some((at, swallowed)) => {
                    star = Some((at, swallowed + 1));
                    g = at + 1;
                    t = swallowed + 1;
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|c| *c == b'*')
}

/// Splits words as a shell does: quotes and backslashes, nothing else.
///
/// # Errors
/// A quote that is not closed.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err(format!("the quote {c} is not closed")),
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => word.extend(chars.next()),
                        Some(inside) => word.push(inside),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_fit_images_as_people_write_them() {
        let check = |glob: &str, image: &str, expect| assert_eq!(fits(glob, image), expect, "{glob} {image}");
        check("my-app", "your-docker-registry/my-app:v1", true);
        check("my-app:*", "your-docker-registry/my-app:v1", true);
        check("my-app:v2", "your-docker-registry/my-app:v1", false);
        check("*", "anything", true);
        check("*/my-app:v?", "registry:5000/my-app:v1", true);
        check("registry:5000/my-app", "registry:5000/my-app:v1", true);
        check("registry:5000/my-app", "registry:5000/my-app", true);
        check("app", "my-app:v1", false);
        check("*app*", "my-app:v1", true);
        check("a*b*c", "aXbYbZc", true);
        assert_eq!(tag("registry:5000/my-app"), "latest");
        assert_eq!(tag("my-app:v1@sha256:00"), "v1");
    }

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        assert_eq!(
            split(r#"python3 -c 'print("a b")' "x \" y" a\ b ''"#).unwrap(),
            ["python3", "-c", "print(\"a b\")", "x \" y", "a b", ""]
        );
        assert!(split("a 'b").is_err());
    }

    #[test]
    fn the_first_fitting_line_plays_the_image() {
        let map = json!({"data": {"b": "*=second", "a": "# mine\nmy-app=first --port $PORT"}});
        let container = |image: &str| json!({"image": image, "command": ["evil"], "args": ["x"]});
        let command = |words: &[&str], from| Player::Command { words: words.iter().map(|w| (*w).to_owned()).collect(), from };
        assert_eq!(player(Some(&map), &container("my-app:v1"), false), command(&["first", "--port", "$PORT"], From::Images));
        assert_eq!(player(Some(&map), &container("other"), false), command(&["second"], From::Images));
        assert_eq!(player(Some(&map), &container("other"), true), command(&["evil", "x"], From::Manifest));
        assert_eq!(player(None, &container("other"), false), Player::Sample(Why::CommandRefused));
        assert_eq!(player(None, &json!({"image": "x"}), true), Player::Sample(Why::UnknownImage));
        let empty = json!({"data": {"a": "x= "}});
        assert!(matches!(player(Some(&empty), &json!({"image": "x"}), true), Player::Sample(Why::BadMapping(_))));
    }
}
