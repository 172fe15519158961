//! Images made here, for engines that import whole images: one layer, as `docker save` writes it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::bundle::make_rootfs;
use crate::cli::{Outcome, text};
use crate::workload;

/// nginx logs when it serves: this.
pub const NGINX_SERVES: &str = "start worker processes";

/// What nginx's own page says.
pub const NGINX_PAGE: &str = "Welcome to nginx!";

/// All that nginx is told.
const NGINX_CONFIG: &str = "\
user root root;
daemon off;
worker_processes 1;
pid /tmp/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 64; }
http {
    access_log /dev/stdout;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    scgi_temp_path /tmp/scgi;
    uwsgi_temp_path /tmp/uwsgi;
    server { listen 80; listen [::]:80; root /usr/share/nginx/html; }
}
";

/// An archive in `directory` of busybox that waits, as a pod's first container does.
pub(super) fn pause(directory: &Path, name: &str) -> PathBuf {
    let root = directory.join("pause");
    make_rootfs(&root);
    archive(directory, &root, name, &["/bin/sleep", "1000000"])
}

/// An archive in `directory` of busybox and Debian's nginx.
pub(super) fn web(directory: &Path, name: &str) -> PathBuf {
    let root = directory.join("web");
    make_rootfs(&root);
    let debian = workload::image();
    let nginx = "/usr/sbin/nginx";
    let inside =
        |args: &[&str]| Outcome::of(Command::new("chroot").arg(&debian).args(args), b"").success().stdout;
    let libraries = inside(&["ldd", nginx]);
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    let files: Vec<_> = libraries.chain([nginx, "/usr/share/nginx/html/index.html"]).collect();
    // The loader is an absolute link, which leads to this machine's from here.
    let real = inside(&[&["realpath"], &files[..]].concat());
    for (file, real) in files.into_iter().zip(real.lines()) {
        let (from, to) = (debian.join(&real[1..]), root.join(&file[1..]));
        fs::create_dir_all(to.parent().expect("a directory")).expect("directory");
        fs::copy(&from, to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    }
    for directory in ["etc/nginx", "var/log/nginx", "var/lib/nginx"] {
        fs::create_dir_all(root.join(directory)).expect("directory");
    }
    symlink("/dev/stderr", root.join("var/log/nginx/error.log")).expect("link");
    fs::write(root.join("etc/nginx/nginx.conf"), NGINX_CONFIG).expect("nginx.conf");
    archive(directory, &root, name, &[nginx])
}

/// An image of the directory `root`, which is used up.
fn archive(directory: &Path, root: &Path, name: &str, command: &[&str]) -> PathBuf {
    let parts = directory.join("parts");
    fs::create_dir(&parts).expect("directory");
    let at = |part: &str| parts.join(part);
    tar(root, &["."], &at("layer.tar"));
    let sum = Outcome::of(Command::new("sha256sum").arg(at("layer.tar")), b"").success().stdout;
    let sum = sum.split_whitespace().next().expect("a sum");
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Cmd": command, "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{sum}")] },
        "history": [{ "created_by": "stockade's tests" }],
    });
    fs::write(at("config.json"), config.to_string()).expect("write config.json");
    let manifest = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
    fs::write(at("manifest.json"), manifest.to_string()).expect("write manifest.json");
    let archive = root.with_extension("tar");
    tar(&parts, &["manifest.json", "config.json", "layer.tar"], &archive);
    for used in [&parts, root] {
        fs::remove_dir_all(used).expect("remove a directory");
    }
    archive
}

fn tar(directory: &Path, content: &[&str], to: &Path) {
    let mut command = Command::new("tar");
    command.args(["--numeric-owner", "-C", text(directory), "-cf", text(to)]).args(content);
    Outcome::of(&mut command, b"").success();
}
