//! A machine for one test: a booted systemd in namespaces, whose root is a copy-on-write view of this one's. Needs Linux and
//! root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use super::{PATIENCE, eventually, repository};

pub struct Machine {
    folder: PathBuf,
    /// `unshare`, whose end ends the machine.
    namespaces: Child,
    /// The process ID of its systemd, as seen from here.
    init: u32,
}

/// The only child of a process.
fn child_of(pid: u32) -> Option<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?.trim().parse().ok()
}

impl Machine {
    pub async fn boot() -> Self {
        assert!(rustix::process::getuid().is_root(), "only root can boot a machine");
        // Not in /tmp, where the machine has its own.
        let folder = PathBuf::from(format!("/var/tmp/purse-machine-{}-{}", std::process::id(), fastrand::u32(..)));
        fs::create_dir(&folder).expect("folder");
        let console = fs::File::create(folder.join("console")).expect("console");
        let namespaces = Command::new("unshare")
            // If the test is killed, so is the machine.
            .args(["--mount", "--uts", "--ipc", "setpriv", "--pdeathsig", "KILL"])
            .arg(repository::root().join("tests/it/support/machine.sh"))
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(console.try_clone().expect("console"))
            .stderr(console)
            .spawn()
            .expect("unshare, which util-linux has");
        let mut machine = Self { folder, namespaces, init: 0 };
        let parent = machine.namespaces.id();
        machine.init = eventually(PATIENCE, "systemd starts", || async {
            let init = child_of(parent)?;
            let name = fs::read_to_string(format!("/proc/{init}/comm")).ok()?;
            (name.trim() == "systemd").then_some(init)
        })
        .await;
        eventually(PATIENCE, "the machine is up", || async {
            (machine.run(&["systemctl", "is-system-running"]).stdout == b"running\n").then_some(())
        })
        .await;
        machine
    }

    /// A path inside the machine, as seen from here.
    pub fn path(&self, inside: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.init)).join(inside.trim_start_matches('/'))
    }

    /// Writes a file that only root can read.
    pub fn write(&self, inside: &str, content: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(inside);
        fs::create_dir_all(path.parent().expect("folder")).expect("folder");
        fs::write(&path, content).unwrap_or_else(|e| panic!("{inside}: {e}"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode");
    }

    /// Runs a command to its end.
    pub fn run(&self, command: &[&str]) -> Output {
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &self.init.to_string(), "--all", "--root", "--wd=/", "--"]).args(command);
        enter.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).output().expect("nsenter")
    }

    /// The same for a command that must succeed; returns its standard output.
    pub fn succeeds(&self, command: &[&str]) -> String {
        let output = self.run(command);
        assert!(output.status.success(), "{command:?}: {output:?}\n{}", self.journal());
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// A property of a unit.
    pub fn show(&self, unit: &str, property: &str) -> String {
        self.succeeds(&["systemctl", "show", "--value", "--property", property, unit])
    }

    /// Everything that was logged, for failure messages.
    pub fn journal(&self) -> String {
        String::from_utf8_lossy(&self.run(&["journalctl", "--no-pager", "--output=cat"]).stdout).into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.namespaces.kill();
        let _ = self.namespaces.wait();
        // The kernel releases the machine's mounts a moment after its last process. Nothing of it is mounted here.
        let group = self.namespaces.id();
        let script = r#"mount -t cgroup2 cgroup2 "$1/cgroup" && find "$1"/cgroup -depth -type d -path "*/purse-$2*" -exec rmdir {} +"#;
        for _ in 0..50 {
            let cleaned = Command::new("unshare")
                .args(["--mount", "sh", "-c", script, "sh"])
                .arg(&self.folder)
                .arg(group.to_string())
                .stderr(Stdio::null())
                .status();
            if cleaned.is_ok_and(|status| status.success()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
