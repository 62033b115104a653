use std::fs;

use super::*;

const POOLS: &str = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: a, namespace: metallb-system}
spec: {addresses: [10.0.0.0/28]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: b, namespace: metallb-system}
spec: {addresses: [10.0.1.0/28]}
";

struct Scene {
    root: tempfile::TempDir,
    directory: Directory,
    start: Instant,
}

impl Scene {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("manifests");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("pools.yaml"), POOLS).unwrap();
        let mut scene = Self {
            directory: Directory::new(&path, Strictness::Strict, &Stored::default()),
            root,
            start: Instant::now(),
        };
        assert_eq!(scene.pools(0), ["a 10.0.0.0/28", "b 10.0.1.0/28"]);
        scene
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("manifests")
    }

    fn write(&self, text: &str) {
        fs::write(self.path().join("pools.yaml"), text).unwrap();
    }

    fn read(&mut self, seconds: u64) -> Reading {
        let reading = self.directory.read(self.start + Duration::from_secs(seconds)).unwrap();
        self.directory.accept(&reading.problems);
        reading
    }

    /// The pools in force `seconds` after the start, with their addresses.
    fn pools(&mut self, seconds: u64) -> Vec<String> {
        let world = self.read(seconds).world;
        let mut pools: Vec<String> = world
            .resources
            .pools
            .iter()
            .map(|pool| format!("{} {}", pool.meta.name, pool.addresses.join(",")))
            .collect();
        pools.sort();
        pools
    }

    /// A new process with what this one stored.
    fn restart(&mut self) {
        let stored = serde_json::to_string(&self.directory.stored()).unwrap();
        let stored: Stored = serde_json::from_str(&stored).unwrap();
        self.directory = Directory::new(&self.path(), Strictness::Strict, &stored);
    }
}

const BOTH: [&str; 2] = ["a 10.0.0.0/28", "b 10.0.1.0/28"];

#[test]
fn text_that_cannot_be_read_changes_nothing_however_long_it_stays_and_across_a_restart() {
    let second = POOLS.split("---\n").nth(1).unwrap();
    let texts = [
        String::new(),
        "\n\n \n".to_owned(),
        POOLS.replacen("spec: {addresses: [10.0.0.0/28]}", "spec: {addresses: 10.0.0.0/28}", 1),
        POOLS.replacen("spec: {addresses: [10.0.0.0/28]}", "spec:\n   addresses:\n  - 10.0.0.0/28", 1),
        POOLS.replacen("spec: {addresses: [10.0.0.0/28]}", "spec: {adresses: [10.0.0.0/28]}", 1),
        POOLS.replacen("spec: {addresses: [10.0.0.0/28]}", "spec: {addresses: [10.0.0.0/28], autoassign: no}", 1),
        POOLS.replacen("name: a,", "name: off,", 1),
        POOLS.replacen("kind: IPAddressPool", "kind: IPAddresspool", 1),
        POOLS.replacen("v1beta1", "v1", 1),
        POOLS.replacen("kind: IPAddressPool\n", "", 1),
        POOLS[..POOLS.len() - 20].to_owned(),
        POOLS[..30].to_owned(),
        POOLS[..4].to_owned(),
        "{\"apiVersion\": \"metallb.io".to_owned(),
        format!("{{{{ if .Values.pools }}}}\n{second}"),
        "\u{0}\u{1}binary".to_owned(),
        "just words".to_owned(),
    ];
    for text in texts {
        let mut scene = Scene::new();
        scene.write(&text);
        assert_eq!(scene.pools(1), BOTH, "{text}");
        let reading = scene.read(60);
        assert!(reading.problems.iter().any(|problem| problem.severity == Severity::Error), "{text}");
        assert_eq!(scene.pools(3600), BOTH, "{text}");
        scene.restart();
        assert_eq!(scene.pools(3601), BOTH, "after a restart: {text}");
        scene.write(POOLS);
        assert_eq!(scene.pools(3602), BOTH, "repaired: {text}");
        assert_eq!(scene.read(3602).problems, [], "{text}");
    }
}

#[test]
fn directory_or_file_that_is_away_changes_nothing() {
    let mut scene = Scene::new();
    let (path, away) = (scene.path(), scene.root.path().join("away"));
    fs::rename(&path, &away).unwrap();
    assert_eq!(scene.pools(3600), BOTH, "the directory is away");
    scene.restart();
    assert_eq!(scene.pools(3601), BOTH, "after a restart");
    fs::create_dir(&path).unwrap();
    assert_eq!(scene.pools(3602), BOTH, "an unmounted directory");
    fs::remove_dir(&path).unwrap();
    fs::rename(&away, &path).unwrap();
    assert_eq!(scene.read(3603).problems, []);

    fs::rename(path.join("pools.yaml"), path.join("pools.yaml~")).unwrap();
    assert_eq!(scene.pools(3604), BOTH, "within the grace time");
    fs::rename(path.join("pools.yaml~"), path.join("more.yaml")).unwrap();
    assert_eq!(scene.pools(3700), BOTH, "the file has another name");

    std::os::unix::fs::symlink("nowhere", path.join("pools.yaml")).unwrap();
    fs::remove_file(path.join("more.yaml")).unwrap();
    fs::remove_file(path.join("pools.yaml")).unwrap();
    fs::write(path.join("real"), POOLS).unwrap();
    std::os::unix::fs::symlink("real", path.join("pools.yaml")).unwrap();
    assert_eq!(scene.pools(3701), BOTH);
    fs::remove_file(path.join("real")).unwrap();
    assert_eq!(scene.pools(9999), BOTH, "a link that leads nowhere");
}

#[test]
fn what_is_deleted_on_purpose_goes_after_the_grace_time_and_does_not_come_back() {
    let first = POOLS.split("---\n").next().unwrap();
    for (text, expected) in
        [(Some(first), vec![BOTH[0]]), (Some("# nothing\n"), vec![]), (Some("---\n"), vec![]), (None, vec![])]
    {
        let mut scene = Scene::new();
        match text {
            Some(text) => scene.write(text),
            None => fs::remove_file(scene.path().join("pools.yaml")).unwrap(),
        }
        let reading = scene.read(10);
        assert_eq!(reading.world.resources.pools.len(), 2, "{text:?}");
        assert_eq!(reading.look_again, Some(scene.start + Duration::from_secs(10) + GRACE));
        assert_eq!(scene.pools(12), expected, "{text:?}");
        scene.restart();
        assert_eq!(scene.pools(13), expected, "after a restart: {text:?}");
    }
    // Deleted while the process was down.
    let mut scene = Scene::new();
    scene.restart();
    fs::remove_file(scene.path().join("pools.yaml")).unwrap();
    assert_eq!(scene.pools(1), Vec::<String>::new());
}

#[test]
fn no_password_is_stored() {
    let mut scene = Scene::new();
    let objects = "\
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: open, namespace: metallb-system}
spec: {myASN: 1, peerASN: 2, peerAddress: 10.9.0.1}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: closed, namespace: metallb-system}
spec: {myASN: 1, peerASN: 2, peerAddress: 10.9.0.2, password: hunter2}
---
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: metallb-system}
type: kubernetes.io/basic-auth
stringData: {password: hunter2}
";
    scene.write(objects);
    scene.read(1);
    let stored = serde_json::to_string(&scene.directory.stored()).unwrap();
    assert!(stored.contains("open") && !stored.contains("hunter2") && !stored.contains("closed"), "{stored}");
}

#[test]
fn form_that_the_configuration_refuses_is_not_stored() {
    let mut scene = Scene::new();
    scene.write(&POOLS.replace("10.0.0.0/28", "10.0.0.0/33"));
    let reading = scene.directory.read(scene.start).unwrap();
    let pool = ObjectRef::new("IPAddressPool", "metallb-system", "a");
    let refused = Problem::error(pool, "spec.addresses[0]", ConfigReason::InvalidAddress, "no");
    scene.directory.accept(&[refused]);
    assert_eq!(reading.world.resources.pools[0].addresses, ["10.0.0.0/33"]);
    let stored: Vec<Value> = scene.directory.stored().objects.into_iter().map(|stored| stored.object).collect();
    assert_eq!(stored[0]["spec"]["addresses"][0], "10.0.0.0/28");
}

#[test]
fn fingerprint_differs_after_every_change() {
    let scene = Scene::new();
    let path = scene.path();
    let mut before = Fingerprint::of(&path);
    let mut differs = |what: &str| {
        let now = Fingerprint::of(&path);
        assert_ne!(now, before, "{what}");
        before = now;
    };
    scene.write("# other\n");
    differs("an edit");
    fs::write(path.join("new.yaml"), "").unwrap();
    differs("a new file");
    fs::rename(&path, scene.root.path().join("old")).unwrap();
    differs("the directory is away");
    fs::create_dir(scene.root.path().join("rev1")).unwrap();
    std::os::unix::fs::symlink("rev1", &path).unwrap();
    differs("a symbolic link");
    fs::create_dir(scene.root.path().join("rev2")).unwrap();
    std::os::unix::fs::symlink("rev2", scene.root.path().join("tmp")).unwrap();
    fs::rename(scene.root.path().join("tmp"), &path).unwrap();
    differs("the link was swapped");
    assert_eq!(Fingerprint::of(&path), before, "nothing happened");
}
