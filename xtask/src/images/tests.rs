use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::tempdir;

use super::archive::{Content, Image};
use super::binary::needs_loader;
use crate::workspace;

fn image(folder: &Path, name: &str) -> Image {
    let binary = folder.join("binary");
    fs::write(&binary, vec![7_u8; 1000]).unwrap();
    Image {
        name: name.to_owned(),
        entrypoint: "/usr/local/bin/thing".to_owned(),
        user: 1337,
        contents: vec![
            Content::File { path: "usr/local/bin/thing".to_owned(), from: binary },
            Content::Link { path: "usr/local/bin/other".to_owned(), to: "thing".to_owned() },
        ],
    }
}

fn json(archive: &Path, member: &str) -> Value {
    let text = workspace::output(Command::new("tar").arg("-xOf").arg(archive).arg(member)).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_same_binary_makes_the_same_bytes() {
    let folder = tempdir().unwrap();
    let image = image(folder.path(), "hub/thing:1");
    let [first, second] = ["first.tar", "second.tar"].map(|name| folder.path().join(name));
    let written = image.write(&first).unwrap();
    assert_eq!(written, image.write(&second).unwrap());
    assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());
}

#[test]
fn an_archive_is_an_oci_layout_and_what_docker_loads() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("image.tar");
    let written = image(folder.path(), "hub/thing:1").write(&path).unwrap();
    let index = json(&path, "index.json");
    let manifest = &index["manifests"][0];
    assert_eq!(manifest["digest"], written.digest.as_str());
    assert_eq!(manifest["annotations"]["io.containerd.image.name"], "docker.io/hub/thing:1");
    let docker = json(&path, "manifest.json");
    assert_eq!(docker[0]["RepoTags"][0], "hub/thing:1");
    let config = json(&path, docker[0]["Config"].as_str().unwrap());
    assert_eq!(config["config"]["User"], "1337:1337");
    let manifest = json(&path, &written.digest.replace("sha256:", "blobs/sha256/"));
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], layer);
    assert_eq!(docker[0]["Layers"][0], layer.replace("sha256:", "blobs/sha256/"));
}

#[test]
fn a_layer_holds_folders_the_binary_and_its_other_names() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("image.tar");
    image(folder.path(), "hub/thing:1").write(&path).unwrap();
    let member = json(&path, "manifest.json")[0]["Layers"][0].as_str().unwrap().to_owned();
    let tar = |args: &[&str]| workspace::output(Command::new("tar").current_dir(folder.path()).args(args)).unwrap();
    tar(&["-xf", "image.tar", &member]);
    let listed = tar(&["--numeric-owner", "--utc", "-tvf", &member]);
    let lines: Vec<String> = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "drwxr-xr-x 0/0 0 1970-01-01 00:00 usr/",
        "drwxr-xr-x 0/0 0 1970-01-01 00:00 usr/local/",
        "drwxr-xr-x 0/0 0 1970-01-01 00:00 usr/local/bin/",
        "-rwxr-xr-x 0/0 1000 1970-01-01 00:00 usr/local/bin/thing",
        "lrwxrwxrwx 0/0 0 1970-01-01 00:00 usr/local/bin/other -> thing",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_hub_without_a_host_is_dockers() {
    let folder = tempdir().unwrap();
    let full = |name: &str| image(folder.path(), name).full_name();
    assert_eq!(full("lateen/meshd:1"), "docker.io/lateen/meshd:1");
    assert_eq!(full("example.com/lateen/meshd:1"), "example.com/lateen/meshd:1");
    assert_eq!(full("localhost/meshd:1"), "localhost/meshd:1");
    assert_eq!(full("registry:5000/meshd:1"), "registry:5000/meshd:1");
}

#[test]
fn a_binary_that_needs_a_loader_is_told_from_one_that_does_not() {
    let own = fs::read(std::env::current_exe().unwrap()).unwrap();
    assert_eq!(needs_loader(&own), Some(true), "tests are linked dynamically");
    // The same without its program headers' kind.
    let mut other = own.clone();
    let start = usize::try_from(u64::from_le_bytes(own[32..40].try_into().unwrap())).unwrap();
    for header in 0..usize::from(u16::from_le_bytes(own[56..58].try_into().unwrap())) {
        other[start + header * usize::from(u16::from_le_bytes(own[54..56].try_into().unwrap()))] = 0;
    }
    assert_eq!(needs_loader(&other), Some(false));
    assert_eq!(needs_loader(b"#!/bin/sh\n"), None);
    assert_eq!(needs_loader(&own[..60]), None, "cut off");
}
