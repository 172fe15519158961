use super::*;
use std::os::unix::fs::symlink;

/// A rootfs beside what must stay as it is, and the mount points of a container made in it.
struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["rootfs", "outside"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self(directory)
    }

    fn rootfs(&self) -> PathBuf {
        self.0.path().join("rootfs")
    }

    /// Makes what mounts on these need, each of a file system of the guest's, or of a file or directory of the host's.
    fn make(&self, mounts: &[(&str, Option<&str>)]) {
        let mut config: serde_json::Value =
            serde_json::from_str(include_str!("../commands/default_config.json")).unwrap();
        config["root"]["path"] = self.rootfs().to_str().unwrap().into();
        let mount = |(destination, source): &(&str, Option<&str>)| match source {
            Some(source) => serde_json::json!({
                "destination": destination, "type": "bind", "source": source, "options": ["bind"]
            }),
            None => serde_json::json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" }),
        };
        config["mounts"] = mounts.iter().map(mount).collect();
        config["process"]["cwd"] = "/work/here".into();
        fs::write(self.0.path().join("config.json"), config.to_string()).unwrap();
        let bundle = crate::oci::bundle::Bundle::load(self.0.path(), None).unwrap();
        let id = "c".parse().unwrap();
        let lowered = crate::lower::lower(&bundle, &id, "c", &Default::default(), Default::default(), false);
        let plan = lowered.unwrap().plan;
        make(&bundle.rootfs, &plan.guest, &plan.trees);
    }

    /// What is outside of the rootfs.
    fn outside(&self) -> usize {
        fs::read_dir(self.0.path().join("outside")).unwrap().count()
    }
}

#[test]
fn directories_files_and_links_are_made_where_mounts_devices_and_the_process_need_them() {
    let fixture = Fixture::new();
    fixture.make(&[("/proc", None), ("/a/b", Some("/tmp")), ("/etc/hosts", Some("/etc/hostname"))]);
    let rootfs = fixture.rootfs();
    for directory in ["proc", "a/b", "dev", "work/here"] {
        assert!(rootfs.join(directory).is_dir(), "{directory}");
    }
    for file in ["etc/hosts", "dev/null", "dev/tty", "dev/console"] {
        assert_eq!(fs::symlink_metadata(rootfs.join(file)).unwrap().len(), 0, "{file}");
    }
    assert_eq!(fs::read_link(rootfs.join("dev/fd")).unwrap(), Path::new("/proc/self/fd"));
    assert_eq!(fs::read_link(rootfs.join("dev/ptmx")).unwrap(), Path::new("pts/ptmx"));
    // Again, with all there.
    fixture.make(&[("/proc", None), ("/a/b", Some("/tmp")), ("/etc/hosts", Some("/etc/hostname"))]);
}

#[test]
fn what_is_in_a_mount_is_not_made_below_it() {
    let fixture = Fixture::new();
    let rootfs = fixture.rootfs();
    symlink("/run", rootfs.join("alias")).unwrap();
    fixture.make(&[
        ("/dev", None),
        ("/dev/pts", None),
        ("/run", None),
        ("/alias/x", None),
        ("/run/../up", None),
    ]);
    assert_eq!(fs::read_dir(rootfs.join("dev")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(rootfs.join("run")).unwrap().count(), 0);
}

#[test]
fn no_link_of_the_image_leads_out() {
    let fixture = Fixture::new();
    let rootfs = fixture.rootfs();
    let outside = fixture.0.path().join("outside");
    symlink(&outside, rootfs.join("absolute")).unwrap();
    symlink("../outside", rootfs.join("relative")).unwrap();
    symlink("../../../../../../..", rootfs.join("up")).unwrap();
    symlink(outside.join("new"), rootfs.join("dangling")).unwrap();
    symlink("loop", rootfs.join("loop")).unwrap();
    fs::write(rootfs.join("file"), "").unwrap();
    fixture.make(&[
        ("/absolute/a", None),
        ("/relative/b", Some("/etc/hostname")),
        ("/../outside/c", None),
        ("/dangling", Some("/etc/hostname")),
        ("/loop/d", None),
        ("/file/e", None),
        ("/up/f", None),
    ]);
    assert_eq!(fixture.outside(), 0);
    // They lead to where they lead in the container.
    assert!(rootfs.join(outside.strip_prefix("/").unwrap()).join("a").is_dir());
    assert!(rootfs.join(outside.strip_prefix("/").unwrap()).join("new").is_file());
    assert!(
        rootfs.join("outside/b").is_file() && rootfs.join("outside/c").is_dir() && rootfs.join("f").is_dir()
    );
}

#[test]
fn an_images_own_ptmx_is_replaced_and_nothing_else() {
    let fixture = Fixture::new();
    let rootfs = fixture.rootfs();
    fs::create_dir(rootfs.join("dev")).unwrap();
    fs::write(rootfs.join("dev/ptmx"), "node").unwrap();
    fs::write(rootfs.join("dev/fd"), "mine").unwrap();
    fs::write(rootfs.join("dev/null"), "mine").unwrap();
    fixture.make(&[]);
    assert_eq!(fs::read_link(rootfs.join("dev/ptmx")).unwrap(), Path::new("pts/ptmx"));
    assert_eq!(fs::read_to_string(rootfs.join("dev/fd")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(rootfs.join("dev/null")).unwrap(), "mine");
}
