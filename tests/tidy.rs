//! The rules of the layout, checked: layers, sizes, and what the documentation must name.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;
const EXIT_CODES: [u32; 11] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 124, 130];

/// Where a name may not be used.
struct Ban {
    /// A folder or file under `src`; empty for all of it.
    within: &'static str,
    /// Folders or files that are let off.
    except: &'static [&'static str],
    names: &'static [&'static str],
    why: &'static str,
}

/// One file owns all retries; nobody else may use the crate.
const RETRY_OWNERS_MAX: usize = 1;

const BANS: [Ban; 12] = [
    Ban {
        within: "source/",
        except: &[],
        names: &["crate::target"],
        why: "source does not know target",
    },
    Ban {
        within: "target/",
        except: &[],
        names: &["crate::source"],
        why: "target does not know source",
    },
    Ban {
        within: "ranges/",
        except: &[],
        names: &[
            "crate::source",
            "crate::target",
            "crate::pipeline",
            "crate::link",
            "crate::store",
        ],
        why: "ranges knows only clusters and nouns",
    },
    Ban {
        within: "resolve/",
        except: &[],
        names: &[
            "crate::cli",
            "crate::clock",
            "crate::config",
            "crate::link",
            "crate::pipeline",
            "crate::shutdown",
            "crate::source",
            "crate::store",
            "crate::target",
            "crate::telemetry",
            "mongodb",
            "sled",
            "tokio",
            "std::time",
        ],
        why: "resolve knows only change: no waiting, no clock, no cluster, no store",
    },
    Ban {
        within: "change/",
        except: &[],
        names: &["mongodb", "sled", "tokio", "crate::source", "crate::target"],
        why: "change holds the nouns and does nothing",
    },
    Ban {
        within: "",
        except: &["cluster/"],
        names: &["mongodb"],
        why: "the driver belongs to cluster, behind its seam to a server",
    },
    Ban {
        within: "store/",
        except: &[],
        names: &["crate::cluster"],
        why: "store does not know the clusters",
    },
    Ban {
        within: "",
        except: &["store/"],
        names: &["sled"],
        why: "sled belongs to store",
    },
    Ban {
        within: "",
        except: &["cli/"],
        names: &["clap"],
        why: "clap belongs to cli",
    },
    Ban {
        within: "",
        except: &["telemetry/"],
        names: &[
            "hyper",
            "hyper_util",
            "prometheus_client",
            "tokio_rustls",
            "webpki_roots",
        ],
        why: "HTTP and metrics belong to telemetry",
    },
    Ban {
        within: "",
        except: &["telemetry/"],
        names: &["indicatif"],
        why: "indicatif belongs to telemetry",
    },
    Ban {
        within: "",
        except: &[],
        names: &["unbounded_channel", "mpsc::unbounded"],
        why: "every queue has a bound",
    },
];

#[test]
fn layers_use_only_what_they_may() {
    let mut broken = Vec::new();
    for (path, text) in files_under("src") {
        let inside = path.strip_prefix("src/").expect("under src");
        for ban in BANS.iter().filter(|ban| inside.starts_with(ban.within)) {
            if ban.except.iter().any(|free| inside.starts_with(free)) {
                continue;
            }
            for name in ban.names.iter().filter(|name| uses(&text, name)) {
                broken.push(format!("{path} uses {name}: {}", ban.why));
            }
        }
    }
    assert_none(broken);
}

#[test]
fn one_file_owns_all_retries() {
    let files = files_under("src");
    let users = files.iter().filter(|(_, text)| uses(text, "backoff"));
    let users: Vec<&String> = users.map(|(path, _)| path).collect();
    assert!(
        users.len() <= RETRY_OWNERS_MAX,
        "backoff is used in {users:?}"
    );
}

#[test]
fn files_and_functions_stay_small() {
    let mut broken = Vec::new();
    for (path, text) in source_files() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            broken.push(format!("{path} has {lines} lines of {FILE_LINES_MAX}"));
        }
        for (name, lines) in functions(&text) {
            if lines > FUNCTION_LINES_MAX {
                broken.push(format!(
                    "{path}: {name} has {lines} lines of {FUNCTION_LINES_MAX}"
                ));
            }
        }
    }
    assert_none(broken);
}

#[test]
fn every_file_opens_with_its_duty_and_leaves_nothing_to_do() {
    let mark = ["TO", "DO"].concat();
    let mut broken = Vec::new();
    for (path, text) in source_files() {
        if !text.starts_with("//! ") {
            broken.push(format!("{path} does not open with //!"));
        }
        if text.contains(&mark) {
            broken.push(format!("{path} has a {mark}"));
        }
        for vague in ["utils", "common", "helpers", "manager"] {
            let named = Path::new(&path).components().any(|part| {
                let part = part.as_os_str().to_string_lossy();
                part.trim_end_matches(".rs") == vague
            });
            if named {
                broken.push(format!("{path} is named {vague}"));
            }
        }
    }
    assert_none(broken);
}

#[test]
fn the_architecture_names_only_paths_that_exist() {
    let Some(text) = read("docs/ARCHITECTURE.md") else {
        return;
    };
    let missing = paths_in(&text)
        .into_iter()
        .filter(|path| !root().join(path).exists());
    assert_none(
        missing
            .map(|path| format!("{path} does not exist"))
            .collect(),
    );
}

#[test]
fn every_exit_code_is_documented() {
    let mut docs = read("README.md").unwrap_or_default();
    for path in walk(&root().join("docs"), "md") {
        docs += &fs::read_to_string(path).expect("a document");
    }
    if docs.is_empty() {
        return;
    }
    let missing = EXIT_CODES.iter().filter(|code| !names_code(&docs, **code));
    assert_none(
        missing
            .map(|code| format!("exit code {code} is nowhere explained"))
            .collect(),
    );
}

#[test]
fn the_scanner_sees_uses_functions_paths_and_codes() {
    assert!(uses("use sled::Db;", "sled"));
    assert!(uses("    let x = sled::open();", "sled"));
    assert!(uses("use crate::{source, x};", "crate::source"));
    assert!(uses("use crate::source;", "crate::source"));
    assert!(uses(
        "use crate::{\n    a::B,\n    source::C,\n};",
        "crate::source"
    ));
    assert!(!uses("use crate::sources;", "crate::source"));
    assert!(!uses("// sled::open locks", "sled"));
    assert!(!uses("the sledge", "sled"));
    assert!(!uses("use tokio_util::x;", "tokio"));
    let text = "fn one() {\n    x\n}\n\n    pub async fn two(\n        a: u8,\n    ) {\n    }\n";
    assert_eq!(
        functions(text),
        [("one".to_owned(), 3), ("two".to_owned(), 4)]
    );
    let paths = paths_in("see `src/change/key.rs` and `Batch`, `docs/X.md`.");
    assert_eq!(paths, ["src/change/key.rs", "docs/X.md"]);
    assert!(names_code("| 8 | fenced |", 8) && names_code("exit code 8", 8));
    assert!(names_code("| `124` | time |", 124) && !names_code("| 124 |", 4));
}

/// Whether code of `text` names the crate or module `name`; comments do not count.
fn uses(text: &str, name: &str) -> bool {
    let grouped = name.strip_prefix("crate::");
    let code = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    statements(code).iter().any(|code| {
        let in_group = grouped.is_some_and(|module| {
            code.split_once("crate::{")
                .is_some_and(|(_, group)| is_path(group, module, false))
        });
        in_group || is_path(code, name, !name.contains("::"))
    })
}

/// The lines, with a `use` of several lines made one.
fn statements<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut open = false;
    for line in lines {
        match found.last_mut() {
            Some(last) if open => last.push_str(line),
            _ => found.push(line.to_owned()),
        }
        let last = found.last().expect("just pushed");
        let is_use = last
            .trim_start()
            .trim_start_matches("pub ")
            .starts_with("use ");
        open = is_use && !line.contains(';');
    }
    found
}

/// Whether `name` stands in `code` as a whole word, and as the start of a path where asked.
fn is_path(code: &str, name: &str, starts_path: bool) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        let whole = !before.ends_with(|c| is_word(c) || c == ':') && !after.starts_with(is_word);
        let used = code.trim_start().starts_with("use ") && !before.contains("::");
        whole && (!starts_path || after.starts_with("::") || used)
            || (!starts_path && name.contains("::") && !after.starts_with(is_word))
    })
}

/// Each function's name and lines, from `fn` to the brace that closes it.
///
/// Relies on rustfmt: that brace stands at the indentation of the line with `fn`.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let indent = &line[..line.len() - line.trim_start().len()];
        let close = format!("{indent}}}");
        let end = (at..lines.len()).find(|end| {
            let here = lines[*end];
            here == close || (*end == at && (here.ends_with(';') || here.ends_with('}')))
        });
        if let Some(end) = end {
            found.push((name, end - at + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut rest = line.trim_start();
    for prefix in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async "] {
        rest = rest.strip_prefix(prefix).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    Some(name[..end].to_owned())
}

/// What stands in backquotes and begins with a folder of ours.
fn paths_in(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let ours = |path: &&str| {
        let folders = ["src/", "tests/", "docs/", "scripts/", ".ci/"];
        folders.iter().any(|folder| path.starts_with(folder)) && !path.contains(['*', ' ', '<'])
    };
    quoted.filter(ours).map(str::to_owned).collect()
}

/// A table row that starts with the code, or "exit code N", or "exit N".
fn names_code(docs: &str, code: u32) -> bool {
    let rows = [format!("| {code} |"), format!("| `{code}` |")];
    let words = [format!("exit code {code}"), format!("exit {code}")];
    docs.lines().any(|line| {
        rows.iter()
            .any(|row| line.trim_start().starts_with(row.as_str()))
            || words.iter().any(|words| {
                line.match_indices(words.as_str()).any(|(at, _)| {
                    !line[at + words.len()..].starts_with(|c: char| c.is_ascii_digit())
                })
            })
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(root().join(path)).ok()
}

fn source_files() -> Vec<(String, String)> {
    let mut files = files_under("src");
    files.extend(files_under("tests"));
    files
}

/// Paths from the root with `/`, and contents.
fn files_under(folder: &str) -> Vec<(String, String)> {
    let files = walk(&root().join(folder), "rs").into_iter().map(|path| {
        let text = fs::read_to_string(&path).expect("a source file");
        let inside = path.strip_prefix(root()).expect("under the root");
        (inside.to_string_lossy().into_owned(), text)
    });
    files.collect()
}

fn walk(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(walk(&path, extension));
        } else if path.extension().is_some_and(|other| other == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn assert_none(broken: Vec<String>) {
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}
