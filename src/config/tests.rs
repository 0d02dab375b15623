//! The configuration as a whole: what is accepted, what is refused, and what is never shown.

use std::path::Path;
use std::time::Duration;

use super::keys::KEYS;
use super::*;

const MINIMAL: &str = r#"
[clusters.a]
uri = "mongodb://one/"
[clusters.b]
uri = "mongodb://two/"
[namespaces]
include = ["shop.*"]
"#;

fn parse_in(text: &str, variables: &[(&str, &str)]) -> Result<Config> {
    let environment = variables.iter().copied().collect();
    let folder = Path::new("/etc/tandem");
    Config::parse(text, "tandem.toml", folder, &environment, &Flags::default())
}

fn parse(text: &str) -> Result<Config> {
    parse_in(text, &[])
}

/// The minimal config with further lines, which may open tables of their own.
fn with(more: &str) -> Result<Config> {
    parse(&format!("{MINIMAL}{more}"))
}

fn problem(result: Result<Config>) -> String {
    let error = result.expect_err("this configuration must be refused");
    assert_eq!(error.exit as i32, 3, "{error}");
    error.to_string()
}

#[test]
fn a_minimal_file_gets_every_default() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.link.mode, Mode::TwoWay);
    assert_eq!(config.link.state_dir, Path::new("/etc/tandem/tandem-state"));
    assert_eq!(config.link.lease_duration, Duration::from_secs(15));
    assert_eq!(config.clusters.a.name, "a");
    assert_eq!(config.clusters.b.uri.reveal(), "mongodb://two/");
    assert_eq!(config.conflicts.policy, Policy::LastWriteWins);
    assert_eq!(config.conflicts.future_max, None);
    assert_eq!(config.conflicts.retention, Duration::from_secs(90 * 86_400));
    assert_eq!(config.apply.operations_per_second_max, None);
    assert_eq!(
        config.initial_sync,
        InitialSync::None {
            start_at: Pair::default()
        }
    );
    assert!(config.http_listen.is_none());
}

#[test]
fn lanes_follow_from_the_machine_unless_they_are_set() {
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(
        parse(MINIMAL).unwrap().apply.lanes,
        (2 * cores).clamp(4, 16)
    );
    let set = |lanes| with(&format!("[apply]\nlanes = {lanes}"));
    for lanes in [1, 4, 5, 64] {
        assert_eq!(set(lanes).unwrap().apply.lanes, lanes);
    }
}

#[test]
fn the_environment_goes_before_the_file_and_a_flag_before_both() {
    let text = format!("{MINIMAL}[link]\nstate_dir = \"from-file\"\n[apply]\nlanes = 2\n");
    let variables = [
        ("TANDEM_APPLY__LANES", "3"),
        ("TANDEM_LINK__STATE_DIR", "from-environment"),
        ("TANDEM_NAMESPACES__EXCLUDE", "shop.tmp_*, shop.log"),
        ("UNRELATED", "x"),
    ];
    let config = parse_in(&text, &variables).unwrap();
    assert_eq!(config.apply.lanes, 3);
    assert_eq!(
        config.link.state_dir,
        Path::new("/etc/tandem/from-environment")
    );
    assert_eq!(config.namespaces.exclude(), ["shop.tmp_*", "shop.log"]);

    let flags = Flags {
        state_dir: Some("here".into()),
    };
    let environment = variables.into_iter().collect();
    let config = Config::parse(&text, "t", Path::new("/etc"), &environment, &flags).unwrap();
    assert_eq!(config.link.state_dir, Path::new("here"));
}

#[test]
fn all_problems_are_listed_at_once_with_their_keys() {
    let text = r#"
        [link]
        mode = "both"
        database = "admin"
        lease = "15s"
        [clusters.a]
        name = "same"
        [clusters.b]
        name = "same"
        uri = "http://two/"
        [apply]
        lanes = 0
        batch_fill_time_max = "soon"
        [ddl]
        replicate = "yes"
    "#;
    let shown = problem(parse_in(text, &[("TANDEM_APPLY__LANE", "1")]));
    for key in [
        "11 problems",
        "\n  link.mode: must be one of two-way, one-way, not \"both\"",
        "\n  link.database: must not be admin",
        "\n  link.lease: unknown key",
        "\n  clusters.a: give one of uri",
        "\n  clusters.b.name: must differ",
        "\n  clusters.b.uri: must give a connection string",
        "\n  namespaces.include: must name at least one",
        "\n  apply.lanes: must be between 1 and 64, not 0",
        "\n  apply.batch_fill_time_max: must be a length of time",
        "\n  ddl.replicate: must be true or false",
        "\n  TANDEM_APPLY__LANE: unknown environment variable; did you mean TANDEM_APPLY__LANES?",
    ] {
        assert!(shown.contains(key), "{key} is missing in {shown}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_key() {
    for (more, expected) in [
        (
            "[apply]\nlane = 1",
            "apply.lane: unknown key; did you mean apply.lanes?",
        ),
        ("[aply]\nlanes = 1", "aply: unknown key"),
        ("[clusters.c]\nuri = \"x\"", "clusters.c: unknown key"),
        (
            "[apply]\nlanes = 65",
            "apply.lanes: must be between 1 and 64",
        ),
        (
            "[apply]\nlanes = \"4\"",
            "apply.lanes: must be a whole number",
        ),
        (
            "[apply]\nbatch_operations_max = -1",
            "apply.batch_operations_max: must be between",
        ),
        (
            "[apply]\nbatch_bytes_max = 134217728",
            "limits.queue_bytes_max: must not be below",
        ),
        (
            "[apply]\ntransaction_time_max = \"0s\"",
            "apply.transaction_time_max: must be between",
        ),
        (
            "[link]\ndatabase = \"a.b\"",
            "link.database: \"a.b\" is not a name",
        ),
        ("[link]\nname = \"\"", "link.name: must be"),
        (
            "[link]\nstate_dir = \"\"",
            "link.state_dir: must not be empty",
        ),
    ] {
        assert_refused(more, expected);
    }
}

#[test]
fn what_is_not_there_is_refused_with_its_key() {
    for (more, expected) in [
        (
            "[initial_sync]\nmode = \"copy\"\nstart_at = \"2025-01-31T12:00:00Z\"",
            "initial_sync.start_at: a copy has its own start",
        ),
        (
            "[initial_sync]\nmode = \"merge\"\nstart_at = \"2025-01-31T12:00:00Z\"",
            "initial_sync.start_at: a merge has its own start",
        ),
        (
            "[initial_sync]\nmode = \"copy\"\nstart_at_b = \"2025-01-31T12:00:00Z\"",
            "initial_sync.start_at_b: a copy has its own start",
        ),
        (
            "[initial_sync]\nstart_at = \"noon\"",
            "initial_sync.start_at: must be a time",
        ),
        (
            "[conflicts]\nversion_field = \"a.b\"",
            "conflicts.version_field: must be a field",
        ),
        (
            "[conflicts]\nfuture_max = \"-1s\"",
            "conflicts.future_max: must be a length",
        ),
        (
            "[http]\nlisten = \"here\"",
            "http.listen: must be an address",
        ),
        (
            "[timeouts]\nconnect = 30",
            "timeouts.connect: must be a text",
        ),
    ] {
        assert_refused(more, expected);
    }
}

fn assert_refused(more: &str, expected: &str) {
    let shown = problem(with(more));
    assert!(shown.contains(expected), "{more:?} gives {shown}");
    assert!(shown.contains("has 1 problem:"), "{more:?} gives {shown}");
}

#[test]
fn namespaces_that_are_never_replicated_are_refused() {
    for pattern in [
        "admin.users",
        "__tandem.keys",
        "local.*",
        "shop",
        "",
        ".x",
        "shop.",
    ] {
        let text = MINIMAL.replace("shop.*", pattern);
        assert!(
            problem(parse(&text)).contains("namespaces.include"),
            "{pattern:?}"
        );
    }
    assert!(parse(&MINIMAL.replace("shop.*", "*")).is_ok());
}

#[test]
fn a_connection_string_comes_from_exactly_one_place() {
    let folder = std::env::temp_dir().join(format!("tandem-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("a.uri"), "mongodb://filed/\n").unwrap();
    let read = |cluster_a: &str, variables: &[(&str, &str)]| {
        let text = MINIMAL.replace("uri = \"mongodb://one/\"", cluster_a);
        let environment = variables.iter().copied().collect();
        Config::parse(&text, "t", &folder, &environment, &Flags::default())
    };
    let uri = |config: Result<Config>| config.unwrap().clusters.a.uri.reveal().to_owned();
    assert_eq!(uri(read("uri_file = \"a.uri\"", &[])), "mongodb://filed/");
    let lent = [("EU", "mongodb://lent/")];
    assert_eq!(uri(read("uri_env = \"EU\"", &lent)), "mongodb://lent/");
    let lent = [("TANDEM_EU", "mongodb://lent/")];
    assert_eq!(
        uri(read("uri_env = \"TANDEM_EU\"", &lent)),
        "mongodb://lent/"
    );
    let given = [("TANDEM_CLUSTERS__A__URI", "mongodb://given/")];
    assert_eq!(uri(read("uri = \"\"", &given)), "mongodb://given/");

    for (cluster_a, variables) in [
        ("uri = \"mongodb://one/\"", &given[..]),
        ("uri_file = \"a.uri\"", &given[..]),
        ("uri = \"mongodb://one/\"\nuri_file = \"a.uri\"", &[][..]),
    ] {
        let shown = problem(read(cluster_a, variables));
        assert!(shown.contains("clusters.a: give only one of"), "{shown}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn one_connection_string_for_both_clusters_is_refused() {
    for same in ["mongodb://one/", "mongodb://one"] {
        let shown = problem(parse(&MINIMAL.replace("mongodb://two/", same)));
        assert!(shown.contains("clusters.b.uri: is the same"), "{shown}");
    }
}

#[test]
fn a_cluster_cannot_have_the_name_of_the_other_one() {
    let text = MINIMAL.replace("[clusters.a]", "[clusters.a]\nname = \"b\"");
    assert!(problem(parse(&text)).contains("clusters.a.name: must not be \"b\""));
}

#[test]
fn no_problem_shows_a_connection_string() {
    const SECRET: &str = "mongodb://user:hunter2@host/";
    for cluster_a in [
        format!("uri = {SECRET}"),
        format!("uri = '{SECRET}"),
        format!("uri = [\"{SECRET}\"]"),
        format!("uri = \"x{SECRET}\""),
        format!("uri_env = \"{SECRET}\""),
        format!("uri_file = \"{SECRET}\""),
        format!("uri_fil = \"{SECRET}\""),
        format!("name = \"{SECRET}\""),
        format!("[link]\nmode = \"{SECRET}\""),
        format!("uri = \"{SECRET}\"\nuri_file = \"{SECRET}\""),
        format!("uri = \"{SECRET}\"\nuri = \"{SECRET}\""),
    ] {
        let text = MINIMAL.replace("uri = \"mongodb://one/\"", &cluster_a);
        let shown = problem(parse(&text));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let config = parse(&MINIMAL.replace("mongodb://one/", SECRET)).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_start_time_is_a_date_or_a_text() {
    for typed in ["2025-01-31T12:00:00Z", "\"2025-01-31T13:00:00.5+01:00\""] {
        let config = with(&format!("[initial_sync]\nstart_at = {typed}")).unwrap();
        let start_at = bson::Timestamp {
            time: 1_738_324_800,
            increment: 0,
        };
        let expected = InitialSync::None {
            start_at: Pair::new(Some(start_at), None),
        };
        assert_eq!(config.initial_sync, expected);
    }
}

#[test]
fn a_file_that_is_not_toml_tells_the_line() {
    let shown = problem(parse("[link]\nname = \n"));
    assert!(shown.contains("is not TOML: line 2"), "{shown}");
}

#[test]
fn a_missing_file_is_a_config_error_with_a_way_out() {
    let file = Path::new("/nowhere/tandem.toml");
    let error = Config::load(file, &Environment::default(), &Flags::default()).unwrap_err();
    assert_eq!(error.exit as i32, 3);
    assert!(error.hint.unwrap().contains("tandem init"));
}

#[test]
fn the_template_holds_every_key_at_its_default() {
    let mut filled = Config::template().to_owned();
    for (cluster, host) in [("[clusters.a]", "one"), ("[clusters.b]", "two")] {
        let at = filled.find(cluster).unwrap();
        let tail = filled[at..].replacen("uri = \"\"", &format!("uri = \"mongodb://{host}/\""), 1);
        filled.replace_range(at.., &tail);
    }
    parse(&filled).unwrap();
    let table: toml::Table = toml::from_str(Config::template()).unwrap();
    for key in KEYS {
        let mut path = key.path.split('.').rev();
        let name = path.next().unwrap();
        let typed = key
            .path
            .split('.')
            .try_fold(&toml::Value::Table(table.clone()), |value, name| {
                value.get(name)
            })
            .cloned();
        match typed {
            Some(_) if key.path == "namespaces.include" => {}
            Some(typed) => assert_eq!(
                key.kind.read(&typed),
                Ok(key.default_value()),
                "{}",
                key.path
            ),
            None => assert!(
                Config::template().contains(&format!("# {name} = ")),
                "{}",
                key.path
            ),
        }
    }
}
