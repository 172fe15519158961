use super::*;

const ENGINES: [Engine; 5] =
    [Engine::Podman, Engine::Docker, Engine::BuildKit, Engine::Containerd, Engine::Crio];

struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Self {
        let fixture = Self(tempfile::tempdir().unwrap());
        fixture.directories().iter().for_each(|directory| fs::create_dir_all(directory).unwrap());
        fixture
    }

    /// What every system has.
    fn directories(&self) -> [PathBuf; 2] {
        ["etc", "var/lib"].map(|directory| self.0.path().join(directory))
    }

    fn path(&self, engine: Engine) -> PathBuf {
        below(self.0.path(), engine.path())
    }

    fn with(engine: Engine, text: &str) -> Self {
        let fixture = Self::new();
        fixture.write(engine, text);
        fixture
    }

    fn write(&self, engine: Engine, text: &str) {
        fs::create_dir_all(self.path(engine).parent().unwrap()).unwrap();
        fs::write(self.path(engine), text).unwrap();
    }

    fn text(&self, engine: Engine) -> String {
        fs::read_to_string(self.path(engine)).unwrap()
    }

    fn install(&self, engine: Engine, binary: &str) -> String {
        let runtime = Runtime { binary, runc_shim: false };
        let change = install(engine, self.0.path(), runtime).unwrap();
        let description = change.describe();
        change.make().unwrap();
        description
    }

    fn uninstall(&self, engine: Engine) {
        uninstall(engine, self.0.path()).unwrap().unwrap().make().unwrap();
    }

    fn is_empty(&self) -> bool {
        self.directories().iter().all(|directory| fs::read_dir(directory).unwrap().next().is_none())
    }
}

#[test]
fn what_was_not_there_is_gone_afterwards() {
    let fixture = Fixture::new();
    for engine in ENGINES {
        assert!(fixture.install(engine, "/usr/bin/stockade").starts_with("--- /dev/null\n+++ "));
        let text = fixture.text(engine);
        assert!(text.contains("/usr/bin/stockade"), "{text}");
        assert!(fixture.install(engine, "/usr/bin/stockade").contains("nothing to change"));
    }
    ENGINES.iter().for_each(|engine| fixture.uninstall(*engine));
    assert!(fixture.is_empty());
    assert!(uninstall(Engine::Podman, fixture.0.path()).unwrap().is_none());
}

#[test]
fn what_was_there_comes_back_byte_by_byte() {
    for (engine, text) in [
        (Engine::Docker, "{\"runtimes\":{\"stockade\":{\"path\":\"/old\"}},  \"debug\":true}"),
        (Engine::Podman, "# old\n[engine.runtimes]\nstockade=['/old']"),
        (Engine::Containerd, "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir='/c'\n"),
        (Engine::Crio, ""),
    ] {
        let fixture = Fixture::with(engine, text);
        fixture.install(engine, "/one");
        // Another binary replaces the first one; what counts is what was there before both.
        fixture.install(engine, "/two");
        assert!(fixture.text(engine).contains("/two") && !fixture.text(engine).contains("/one"));
        fixture.uninstall(engine);
        assert_eq!(fixture.text(engine), text);
    }
}

#[test]
fn what_others_have_changed_since_stays() {
    let fixture = Fixture::with(Engine::Docker, "{\"debug\": true}");
    fixture.install(Engine::Docker, "/usr/bin/stockade");
    let edited = fixture.text(Engine::Docker).replace("true", "false");
    fixture.write(Engine::Docker, &edited);
    fixture.uninstall(Engine::Docker);
    assert_eq!(fixture.text(Engine::Docker), "{\n  \"debug\": false\n}\n");
}

#[test]
fn containerd_keeps_runc_and_its_sections() {
    let runtimes = |fixture: &Fixture| {
        let text = fixture.text(Engine::Containerd);
        let keys = ["plugins", "io.containerd.grpc.v1.cri", "containerd", "runtimes"];
        let table = Engine::Containerd.format().get(&text, &keys).unwrap().unwrap();
        table.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    let fixture = Fixture::new();
    fixture.install(Engine::Containerd, "/s");
    assert!(fixture.text(Engine::Containerd).starts_with("version = 2\n"));
    assert_eq!(runtimes(&fixture), ["runc", "stockade"]);

    let kata =
        "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.kata]\nruntime_type='k'\n";
    let fixture = Fixture::with(Engine::Containerd, kata);
    fixture.install(Engine::Containerd, "/s");
    assert_eq!(runtimes(&fixture), ["kata", "stockade"]);

    let fixture = Fixture::with(Engine::Containerd, "version = 3\n");
    fixture.install(Engine::Containerd, "/s");
    assert!(fixture.text(Engine::Containerd).contains("io.containerd.cri.v1.runtime"));
}

#[test]
fn podmans_list_of_runtimes_without_cgroups_is_added_to() {
    let list = |fixture: &Fixture| {
        let text = fixture.text(Engine::Podman);
        Engine::Podman.format().get(&text, &["engine", "runtime_supports_nocgroups"]).unwrap().unwrap()
    };
    let fixture = Fixture::new();
    fixture.install(Engine::Podman, "/s");
    assert_eq!(list(&fixture), serde_json::json!(["crun", "krun", "stockade"]));
    let fixture = Fixture::with(Engine::Podman, "");
    let beside = |name: &str| fixture.path(Engine::Podman).with_file_name(name);
    fs::write(beside("50-mine.conf"), "[engine]\nruntime_supports_nocgroups = ['mine', {append=true}]\n")
        .unwrap();
    fs::write(beside("z.conf"), "[engine]\nruntime_supports_nocgroups = ['later']\n").unwrap();
    fixture.install(Engine::Podman, "/s");
    assert_eq!(list(&fixture), serde_json::json!(["crun", "krun", "mine", "stockade"]));
    fs::write(beside("50-mine.conf"), "[engine]\nruntime_supports_nocgroups = ['mine']\n").unwrap();
    fixture.install(Engine::Podman, "/s");
    assert_eq!(list(&fixture), serde_json::json!(["mine", "stockade"]));
}

#[test]
fn a_file_that_is_not_understood_is_left_alone() {
    for (engine, text, words) in [
        (Engine::Docker, "{\"debug\": true,\n}", "line 2"),
        (Engine::Docker, "{\"runtimes\": []}", "`runtimes` is not a table"),
        (Engine::Containerd, "version = 2\nversion = 2\n", "line 2"),
        (Engine::Containerd, "oom_score = 0\n", "version 1"),
    ] {
        let fixture = Fixture::with(engine, text);
        let error = install(engine, fixture.0.path(), Runtime { binary: "/s", runc_shim: false })
            .unwrap_err()
            .to_string();
        assert!(error.contains(words) && error.contains(engine.path()), "{error}");
        assert_eq!(fixture.text(engine), text);
    }
}

#[test]
fn links_and_modes_stay() {
    let fixture = Fixture::with(Engine::Docker, "{}");
    let real = fixture.0.path().join("real.json");
    let path = fixture.path(Engine::Docker);
    fs::rename(&path, &real).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&real, &path).unwrap();
    fixture.install(Engine::Docker, "/s");
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o600);
    let record = record::path(fixture.0.path(), Engine::Docker);
    assert_eq!(fs::metadata(record).unwrap().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&real).unwrap().contains("/s"));
}

#[test]
fn containerd_gets_the_shim_that_is_beside_the_binary() {
    let beside = tempfile::tempdir().unwrap();
    let shim = beside.path().join("containerd-shim-stockade-v2");
    fs::write(&shim, "").unwrap();
    let type_of = |binary: &str, runc_shim| {
        let settings =
            Engine::Containerd.settings(Runtime { binary, runc_shim }, "", Path::new("/")).unwrap();
        let runtime_type = settings
            .iter()
            .find(|setting| setting.keys.ends_with(&["stockade".into(), "runtime_type".into()]));
        let has_options = settings.iter().any(|setting| setting.keys.contains(&"options".to_owned()));
        (runtime_type.unwrap().value.as_str().unwrap().to_owned(), has_options)
    };
    let own = beside.path().join("stockade");
    let runcs = || ("io.containerd.runc.v2".to_owned(), true);
    assert_eq!(type_of(own.to_str().unwrap(), false), (shim.to_str().unwrap().to_owned(), false));
    assert_eq!(type_of(own.to_str().unwrap(), true), runcs());
    assert_eq!(type_of(beside.path().join("other").to_str().unwrap(), false), runcs());
    assert_eq!(type_of("/nowhere/stockade", false), runcs());
}
