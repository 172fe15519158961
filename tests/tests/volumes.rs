//! Volumes as Kubernetes' kubelet and other engines hand them to a runtime: bind mounts of tmpfs, directories and
//! files.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use stockade_tests::bundle::{self, Bundle};
use stockade_tests::cli::{Stockade, text};
use stockade_tests::shell::Shell;
use tempfile::TempDir;

/// A tmpfs of the host, unmounted with the value.
struct Tmpfs(PathBuf, #[expect(dead_code, reason = "removed when it is dropped")] TempDir);

impl Tmpfs {
    fn new(options: &str) -> Self {
        let directory = bundle::directory();
        let point = directory.path().join("volume");
        fs::create_dir(&point).expect("mkdir");
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "volume", text(&point)]).status();
        assert!(status.expect("mount").success());
        Self(point, directory)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

fn bind(config: &mut Value, source: &Path, destination: &str, options: &[&str]) {
    config["mounts"].as_array_mut().expect("mounts").push(json!({
        "destination": destination, "type": "bind", "source": text(source), "options": options
    }));
}

/// Gives a container the host's perl, whose `syscall` does what no applet does.
fn add_perl(config: &mut Value) {
    for directory in ["/usr", "/lib", "/lib64"] {
        bind(config, Path::new(directory), directory, &["rbind", "ro"]);
    }
}

fn join(config: &mut Value, sandbox: &str) {
    config["annotations"] = json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-id": sandbox,
    });
}

#[test]
fn an_empty_dir_in_memory_ends_where_its_size_limit_is() {
    let volume = Tmpfs::new("size=4m,mode=1777");
    let stockade = Stockade::new();
    let mut shell = Shell::start(&stockade, "memory", |config| {
        bind(config, &volume.0, "/cache", &["rbind", "rw"]);
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    });
    // All that is shared has one device number, by which `df` would look for the mount.
    assert_eq!(shell.ask("stat -f -c '%b %S' /cache"), "1024 4096\n");
    let said = shell.ask("dd if=/dev/zero of=/cache/file bs=1M count=8 2>&1");
    assert!(said.contains("No space left on device"), "{said}");
    let written = fs::metadata(volume.0.join("file")).expect("file on the host");
    assert_eq!((written.len(), written.uid()), (4 << 20, 1000));
    // What is removed is room again.
    let said = shell.ask("rm /cache/file; dd if=/dev/zero of=/cache/file bs=1M count=2 2>&1 && echo done");
    assert!(said.ends_with("done\n"), "{said}");
    assert_eq!(shell.end(), 0);
}

#[test]
fn an_empty_dir_on_disk_is_one_for_all_containers_of_a_pod_and_outlives_each() {
    let directory = bundle::directory();
    let volume = directory.path().join("empty-dir");
    fs::create_dir(&volume).expect("mkdir");
    // As kubelet makes it for fsGroup 2000.
    chown(&volume, None, Some(2000)).expect("chown");
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o2777)).expect("chmod");
    let stockade = Stockade::new();
    let mut pod = Shell::start(&stockade, "pod", |config| bind(config, &volume, "/work", &["rbind", "rw"]));
    pod.ask("mkdir /work/directory; echo one > /work/directory/file");
    let member = Bundle::script(
        "cat /data/directory/file; echo two >> /data/directory/file; id > /data/mine",
    )
    .edit(|config| {
        join(config, "pod");
        bind(config, &volume, "/data", &["rbind", "rw"]);
        config["process"]["user"] =
            json!({ "uid": 1000, "gid": 1000, "additionalGids": [2000], "umask": 0o002 });
    });
    // The directory is another user's, and the file in it as well: only what the volume itself allows is.
    let outcome = stockade.run_bundle(&member, "first");
    assert_eq!(outcome.stdout, "one\n", "{outcome:#?}");
    pod.ask("chmod 666 /work/directory/file");
    let outcome = stockade.run_bundle(&member, "first").success();
    assert_eq!(outcome.stdout, "one\n");
    assert_eq!(pod.ask("cat /work/directory/file"), "one\ntwo\n");
    let mine = fs::metadata(volume.join("mine")).expect("file on the host");
    assert_eq!((mine.uid(), mine.gid()), (1000, 2000), "the volume's group is inherited");
    assert_eq!(pod.end(), 0);
    assert_eq!(fs::read_to_string(volume.join("directory/file")).expect("file"), "one\ntwo\n");
}

#[test]
fn a_host_path_may_be_a_directory_or_a_file() {
    let host = bundle::directory();
    fs::write(host.path().join("file"), "host\n").expect("write");
    let script = "cat /mnt/file /etc/single; echo new > /mnt/made; (echo x > /etc/single) 2>/dev/null || echo refused; \
                  stat -c %F /mnt /etc/single";
    let bundle = Bundle::script(script).edit(|config| {
        bind(config, host.path(), "/mnt", &["rbind", "rw"]);
        bind(config, &host.path().join("file"), "/etc/single", &["rbind", "ro"]);
    });
    let outcome = Stockade::new().run_bundle(&bundle, "paths").success();
    assert_eq!(outcome.stdout, "host\nhost\nrefused\ndirectory\nregular file\n");
    assert_eq!(fs::read_to_string(host.path().join("made")).expect("made"), "new\n");
    assert_eq!(fs::read_to_string(host.path().join("file")).expect("file"), "host\n");
}

/// kubelet binds a subPath to a directory of its own first, so that nobody can replace it by a link meanwhile.
#[test]
fn a_sub_path_shows_that_part_of_the_volume_alone() {
    let volume = bundle::directory();
    let staged = bundle::directory();
    fs::create_dir_all(volume.path().join("inner/deep")).expect("mkdir");
    fs::write(volume.path().join("inner/deep/file"), "deep\n").expect("write");
    fs::write(volume.path().join("secret"), "secret\n").expect("write");
    let points = [("inner", staged.path().join("0")), ("inner/deep/file", staged.path().join("1"))];
    fs::create_dir(&points[0].1).expect("mkdir");
    fs::write(&points[1].1, "").expect("write");
    for (part, point) in &points {
        let status =
            Command::new("mount").args(["--bind", text(&volume.path().join(part)), text(point)]).status();
        assert!(status.expect("mount").success());
    }
    let script = "ls /data /data/..; cat /data/deep/file /etc/one; cat /data/../secret 2>/dev/null; \
                  echo more >> /etc/one; echo new > /data/new";
    let bundle = Bundle::script(script).edit(|config| {
        bind(config, &points[0].1, "/data", &["rbind", "rw"]);
        bind(config, &points[1].1, "/etc/one", &["rbind", "rw"]);
    });
    let outcome = Stockade::new().run_bundle(&bundle, "part");
    for (_, point) in &points {
        assert!(Command::new("umount").arg(point).status().expect("umount").success());
    }
    let lines: Vec<&str> = outcome.success().stdout.leak().lines().collect();
    assert_eq!(lines[..2], ["/data:", "deep"]);
    assert!(!lines.contains(&"secret"), "{lines:?}");
    assert_eq!(lines[lines.len() - 2..], ["deep", "deep"]);
    assert_eq!(fs::read_to_string(volume.path().join("inner/deep/file")).expect("file"), "deep\nmore\n");
    assert_eq!(fs::read_to_string(volume.path().join("inner/new")).expect("new"), "new\n");
}

#[test]
fn shared_memory_has_the_size_that_config_json_says() {
    let bundle = Bundle::script(
        "df -k /dev/shm | tail -n 1 | awk '{ print $(NF-4) }'; dd if=/dev/zero of=/dev/shm/f bs=1M count=4 2>&1 | grep -c 'No space'",
    )
    .edit(|config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        let shm = mounts.iter_mut().find(|mount| mount["destination"] == "/dev/shm").expect("/dev/shm");
        shm["options"] = json!(["nosuid", "noexec", "nodev", "mode=1777", "size=2048k"]);
    });
    let outcome = Stockade::new().run_bundle(&bundle, "shm").success();
    assert_eq!(outcome.stdout, "2048\n1\n");
}

/// The shm of a pod is a tmpfs that the engine has made on the host; containers talk through what they map of it, whoever of
/// them was there first.
#[test]
fn two_containers_see_at_once_what_either_writes_to_a_mapped_file() {
    let volume = Tmpfs::new("size=4m,mode=1777");
    fs::write(volume.0.join("map"), [0; 4096]).expect("write");
    let stockade = Stockade::new();
    let mapping = "perl -e '\
        open(F, \"+<\", \"/shm/map\") or die; \
        $a = syscall(9, 0, 4096, 3, 1, fileno(F), 0); die if $a == -1; $| = 1; \
        sub see { unpack(\"P8\", pack(\"Q\", $a + $_[0])) } \
        sub put { pipe(R, W); syswrite(W, $_[1]); syscall(0, fileno(R), $a + $_[0], 8) }";
    let edit = |config: &mut Value| {
        add_perl(config);
        bind(config, &volume.0, "/shm", &["rbind", "rw"]);
    };
    let mut pod = Shell::start(&stockade, "pod", edit);
    let mut member = Shell::start(&stockade, "member", |config| {
        edit(config);
        join(config, "pod");
    });
    // Locks of one hold for the other.
    pod.tell("flock -n /shm/map sh -c 'echo held; while [ ! -e /shm/let-go ]; do sleep 0.1; done'");
    assert_eq!(pod.line(), "held\n");
    assert_eq!(member.ask("flock -n /shm/map true || echo locked; touch /shm/let-go"), "locked\n");
    assert_eq!(pod.answer(), "");
    // Each keeps its mapping while the other writes; neither reads the file again.
    pod.tell(&format!(
        "{mapping} print \"mapped\\n\"; until (see(0) eq \"question\") {{ select(undef, undef, undef, 0.01) }}; put(8, \"answer!!\"); print \"seen\\n\"'"
    ));
    member.tell(&format!(
        "{mapping} put(0, \"question\"); until (see(8) eq \"answer!!\") {{ select(undef, undef, undef, 0.01) }}; print \"answered\\n\"'"
    ));
    assert_eq!(member.answer(), "answered\n");
    assert_eq!(pod.answer(), "mapped\nseen\n");
    assert_eq!(member.end(), 0);
    assert_eq!(pod.end(), 0);
    let map = fs::read(volume.0.join("map")).expect("read");
    assert_eq!(&map[..16], b"questionanswer!!", "what was mapped is on the host when it is closed");
}

/// A volume as kubelet writes one of a ConfigMap or Secret.
struct Swapped(TempDir);

impl Swapped {
    fn new(version: &str, keys: &[(&str, &str)]) -> Self {
        let volume = Self(bundle::directory());
        volume.swap(version, keys);
        volume
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn swap(&self, version: &str, keys: &[(&str, &str)]) {
        let directory = self.path().join(version);
        fs::create_dir(&directory).expect("mkdir");
        for (key, text) in keys {
            fs::write(directory.join(key), text).expect("write");
            fs::set_permissions(directory.join(key), fs::Permissions::from_mode(0o640)).expect("chmod");
            chown(directory.join(key), None, Some(2000)).expect("chown");
        }
        let data = self.path().join("..data");
        let old = fs::read_link(&data).ok();
        let new = self.path().join("..data_tmp");
        symlink(version, &new).expect("symlink");
        fs::rename(new, &data).expect("rename");
        for (key, _) in keys {
            // It is there already but for a new key.
            let _ = symlink(format!("..data/{key}"), self.path().join(key));
        }
        if let Some(old) = old {
            fs::remove_dir_all(self.path().join(old)).expect("remove the old version");
        }
    }
}

/// Prints the names of what is moved to or made in /config, until the link of the new version is there.
const WATCH: &str = "perl -e '\
    $| = 1; $i = syscall(294, 0); $p = \"/config\\0\"; syscall(254, $i, $p, 0x180) >= 0 or die; open(I, \"<&=$i\"); \
    print \"watching\\n\"; \
    until ($seen) { sysread(I, $b, 4096) or die; \
        while (length $b) { ($w, $m, $c, $n) = unpack(\"iIII\", $b); $name = unpack(\"Z*\", substr($b, 16, $n)); \
            $seen ||= $m & 0x80 && $name eq \"..data\"; $b = substr($b, 16 + $n) } } \
    print \"swapped\\n\"'";

#[test]
fn a_config_map_that_changes_on_the_host_is_told_to_who_watches_it() {
    let volume = Swapped::new("..2024_1", &[("key", "one\n"), ("other", "same\n")]);
    let stockade = Stockade::new();
    let mut shell = Shell::start(&stockade, "config", |config| {
        add_perl(config);
        bind(config, volume.path(), "/config", &["rbind", "ro"]);
    });
    assert_eq!(shell.ask("cat /config/key /config/other; readlink /config/key"), "one\nsame\n..data/key\n");
    assert_eq!(shell.ask("stat -L -c '%u %g %a' /config/key"), "0 2000 640\n");
    let refused =
        shell.ask("echo x 2>/dev/null > /config/key; echo x 2>/dev/null > /config/new; ls -A /config");
    assert_eq!(refused, "..2024_1\n..data\nkey\nother\n");
    for (version, text) in [("..2024_2", "two\n"), ("..2024_3", "three\n")] {
        shell.tell(WATCH);
        assert_eq!(shell.line(), "watching\n");
        volume.swap(version, &[("key", text), ("other", "same\n"), ("more", text)]);
        assert_eq!(shell.answer(), "swapped\n");
        assert_eq!(shell.ask("cat /config/key"), text);
    }
    assert_eq!(shell.ask("while [ -e /config/..2024_2 ]; do sleep 0.1; done; cat /config/more"), "three\n");
    assert_eq!(shell.end(), 0);
}

/// What is too large for a copy is shared as any other directory: the content follows, without events.
#[test]
fn a_large_directory_with_versions_follows_the_host_within_the_caches_time() {
    let large = "x".repeat(3 << 20);
    let volume = Swapped::new("..1", &[("key", "one\n"), ("large", &large)]);
    let stockade = Stockade::new();
    let mut shell = Shell::start(&stockade, "large", |config| {
        bind(config, volume.path(), "/config", &["rbind", "ro"]);
    });
    assert_eq!(shell.ask("cat /config/key; wc -c < /config/large"), format!("one\n{}\n", 3 << 20));
    volume.swap("..2", &[("key", "two\n"), ("large", &large)]);
    let script = "i=0; until [ \"$(cat /config/key)\" = two ]; do sleep 0.1; i=$((i + 1)); [ $i -lt 600 ] || break; done; \
                  cat /config/key";
    assert_eq!(shell.ask(script), "two\n");
    assert_eq!(shell.end(), 0);
}

#[test]
fn files_of_the_host_are_and_can_what_they_are_and_can_there() {
    const MANY: usize = 12;
    const ACL: &str = r#"
        sub reads { my ($user, $group) = @_; my $child = fork;
            if (!$child) { $) = "$group $group"; $> = $user; my $f; print open($f, "<", "/v/o") ? <$f> : "refused\n"; exit }
            waitpid($child, 0) }
        $| = 1; open(F, ">", "/v/o"); print F "secret\n"; close F; chmod 0600, "/v/o";
        my $none = 0xffffffff;
        my $acl = pack("V(vvV)*", 2, 1, 6, $none, 2, 4, 1000, 4, 0, $none, 16, 4, $none, 32, 0, $none);
        my ($file, $name) = ("/v/o", "system.posix_acl_access");
        syscall(188, $file, $name, $acl, length $acl, 0) == 0 or print "$!\n";
        printf "%o\n", (stat "/v/o")[2] & 07777; reads(1000, 1000); reads(1001, 1001); reads(1001, 0);"#;
    let volume = Tmpfs::new("mode=755");
    let many = Tmpfs::new("mode=755");
    let script =
        "for i in $(seq $1); do mkdir $0/$i && mount -t tmpfs -o size=64k m $0/$i && echo $i > $0/$i/f; done";
    let made = Command::new("sh").args(["-c", script, text(&many.0), &MANY.to_string()]).status();
    assert!(made.expect("sh").success());
    let bundle = Bundle::script(&format!(
        "exec 2>&1; cd /v; mkdir l u k m; echo l > l/f; mount -t overlay o -o lowerdir=l,upperdir=u,workdir=k m && rm m/f; \
         ls m; ls -l u | tail -1 | cut -c1-10; \
         cat /many/*/f | wc -l; find /many -xdev -name f | wc -l; cat /m/*/f | wc -l; \
         [ $(stat -c %d /many/1) = $(stat -c %d /many) ] || echo border; [ /many/1/f -ef /many/2/f ] || echo differ; \
         stat -c %s /loadavg /hp/stat; wc -w < /loadavg; head -c 5 /hp/stat; echo; head -c 1 /hp/1/status; echo; /usr/bin/perl -e '{ACL}'"
    ))
    .edit(|config| {
        add_perl(config);
        bind(config, &volume.0, "/v", &["rbind", "rprivate"]);
        bind(config, &many.0, "/many", &["rbind", "rprivate"]);
        for number in 1..=MANY {
            bind(config, &many.0.join(number.to_string()), &format!("/m/{number}"), &["rbind", "rprivate"]);
        }
        bind(config, Path::new("/proc"), "/hp", &["rbind", "ro"]);
        bind(config, Path::new("/proc/loadavg"), "/loadavg", &["bind", "ro"]);
        let all = json!(["CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE", "CAP_MKNOD"]);
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = all.clone();
        }
        config["process"]["rlimits"] = json!([]);
    });
    let outcome = Stockade::new().run_bundle(&bundle, "files");
    let _ = Command::new("umount").args(["-R", text(&many.0)]).status();
    assert_eq!(
        outcome.success().stdout,
        "c---------\n12\n0\n12\nborder\ndiffer\n0\n0\n5\ncpu  \nN\n640\nsecret\nrefused\nrefused\n"
    );
}

/// Two VMs and the host change one directory. What a container has read before, or has not found, does not hide it; a mapping
/// shows no more of the past than a read.
#[test]
fn what_the_host_and_other_pods_change_is_seen_though_it_was_read_before() {
    const NAMES: [&str; 4] = ["place", "other", "shorter", "mapped"];
    let volume = Tmpfs::new("mode=755");
    let at = |name: &str| volume.0.join(name);
    NAMES.iter().for_each(|name| fs::write(at(name), "one\n").expect("write"));
    let stockade = Stockade::new();
    let edit = |config: &mut Value| {
        add_perl(config);
        bind(config, &volume.0, "/v", &["rbind", "rw"]);
    };
    let mut pod = Shell::start(&stockade, "one-pod", edit);
    let mut other = Shell::start(&stockade, "other-pod", edit);
    let map = "perl -e 'open(F, \"<\", \"/v/mapped\"); $a = syscall(9, 0, 4096, 1, 1, fileno(F), 0); \
               print unpack(\"P4\", pack(\"Q\", $a))'";
    let all = format!(
        "cat {}; {map}; [ -e /v/new ] || echo none",
        NAMES.map(|name| format!("/v/{name}")).join(" ")
    );
    for _ in 0..3 {
        for shell in [&mut pod, &mut other] {
            assert_eq!(shell.ask(&all), "one\n".repeat(5) + "none\n");
        }
    }
    // The same size and the same time of modification, in the file itself and in another one that takes its name.
    let rewrite = |name: &str, text: &str| {
        let file = fs::OpenOptions::new().write(true).open(at(name)).expect("open");
        let modified = file.metadata().expect("metadata").modified().expect("mtime");
        file.write_all_at(text.as_bytes(), 0).expect("write");
        file.set_modified(modified).expect("utimens");
    };
    let modified = fs::metadata(at("other")).expect("metadata").modified().expect("mtime");
    fs::write(at("copy"), "two\n").expect("write");
    fs::File::options().write(true).open(at("copy")).expect("open").set_modified(modified).expect("utimens");
    fs::rename(at("copy"), at("other")).expect("rename");
    rewrite("place", "two\n");
    rewrite("mapped", "two\n");
    fs::OpenOptions::new().write(true).open(at("shorter")).expect("open").set_len(2).expect("truncate");
    fs::write(at("new"), "two\n").expect("write");
    let wait = |shell: &mut Shell<'_>, command: &str, wanted: &str| {
        let script = format!(
            "i=0; until [ \"$({command})\" = \"$(printf '{wanted}')\" ]; do i=$((i + 1)); [ $i -lt 300 ] || break; done; {command}"
        );
        assert_eq!(shell.ask(&script), wanted.replace("\\n", "\n"), "{command}");
    };
    for shell in [&mut pod, &mut other] {
        wait(shell, "cat /v/other /v/place /v/new", "two\\ntwo\\ntwo\\n");
        wait(shell, map, "two\\n");
        wait(shell, "wc -c < /v/shorter", "2\\n");
    }
    // What one pod writes, the other sees, and the host at once.
    assert_eq!(other.ask("printf 333 | dd of=/v/place conv=notrunc 2>/dev/null; mv /v/new /v/moved"), "");
    assert_eq!(fs::read_to_string(at("place")).expect("read"), "333\n");
    wait(&mut pod, "cat /v/place /v/moved", "333\\ntwo\\n");
    wait(&mut pod, "cat /v/new 2>/dev/null || echo gone", "gone\\n");
    assert_eq!(pod.end(), 0);
    assert_eq!(other.end(), 0);
}

/// Who writes to a program, or changes its owner, does not keep the rights that it gave, though the guest's kernel asks for none of them
/// before it writes.
#[test]
fn a_changed_program_gives_no_rights() {
    let volume = Tmpfs::new("mode=777");
    let script = r#"
        sub rights { my ($file, $name, $value) = ("/v/f", "security.capability", "\0" x 32);
            my $has = syscall(191, $file, $name, $value, 32) > 0 ? "capability" : "none";
            printf "%04o %s\n", (stat "/v/f")[2] & 07777, $has }
        sub give { my ($file, $name) = ("/v/f", "security.capability"); my $value = pack("V5", 0x2000001, 1 << 10, 0, 0, 0);
            chmod 06777, "/v/f"; syscall(188, $file, $name, $value, length $value, 0) == 0 or print "$!\n"; rights() }
        sub as_user { my $child = fork; if (!$child) { $) = "1000 1000"; $> = 1000; $_[0]->(); exit } waitpid($child, 0); rights() }
        $| = 1; open(F, ">", "/v/f"); print F "program"; close F;
        give(); as_user(sub { open(F, "+<", "/v/f"); syswrite(F, "x"); close F });
        give(); as_user(sub { truncate("/v/f", 3) });
        give(); as_user(sub { open(F, ">", "/v/f"); close F });
        give(); chown(1000, 1000, "/v/f"); rights();"#;
    let bundle = Bundle::busybox(&["/usr/bin/perl", "-e", script]).edit(|config| {
        add_perl(config);
        bind(config, &volume.0, "/v", &["rbind", "rw"]);
        let some = json!(["CAP_SETFCAP", "CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_FSETID"]);
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = some.clone();
        }
    });
    let stdout = Stockade::new().run_bundle(&bundle, "rights").success().stdout;
    assert_eq!(stdout, "6777 capability\n0777 none\n".repeat(4));
}
