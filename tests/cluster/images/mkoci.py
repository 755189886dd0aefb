#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pack static binaries into an OCI image archive: one layer, no build tool, the same bytes for the same files.

    mkoci.py OUT.tar NAME:TAG ENTRY FILE=/path/in/image...

ENTRY is the path of the program in the image. Containerd reads the archive (`ctr images import`).
"""
import argparse
import hashlib
import io
import json
import os
import posixpath
import tarfile

USERS = "root:x:0:0::/:\nnonroot:x:65532:65532::/tmp:\n"
GROUPS = "root:x:0:\nnonroot:x:65532:\n"
# Without it glibc, linked statically, looks for modules that an empty image lacks.
NAMES = "hosts: files dns\nservices: files\n"
OCI = "application/vnd.oci.image."


def tar(entries):
    """A tar file of (name, bytes or None for a folder, mode), without times and owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data, mode in entries:
            info = tarfile.TarInfo(name)
            info.mode = mode
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.size = len(data or b"")
            archive.addfile(info, io.BytesIO(data or b""))
    return buffer.getvalue()


def layer_entries(files):
    """The files to be packed, with the folders above them."""
    entries = {
        "etc/passwd": (USERS.encode(), 0o644),
        "etc/group": (GROUPS.encode(), 0o644),
        "etc/nsswitch.conf": (NAMES.encode(), 0o644),
        "tmp": (None, 0o1777),
    }
    for source, destination in files:
        with open(source, "rb") as file:
            data = file.read()
        mode = 0o755 if os.access(source, os.X_OK) else 0o644
        entries[posixpath.normpath(destination).lstrip("/")] = (data, mode)
    for name in list(entries):
        while name := posixpath.dirname(name):
            entries.setdefault(name, (None, 0o755))
    return [(name, *entries[name]) for name in sorted(entries)]


def descriptor(data, kind):
    return {"mediaType": OCI + kind, "digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data)}


def as_json(value):
    return json.dumps(value, sort_keys=True).encode()


def image(reference, entry, files, user):
    # Not compressed: packing and unpacking a debug build would take seconds, and the archive stays on this machine.
    layer = tar(layer_entries(files))
    layer_descriptor = descriptor(layer, "layer.v1.tar")
    config = as_json(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "config": {"User": user, "Entrypoint": [entry], "Env": ["PATH=/bin:/"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [layer_descriptor["digest"]]},
        }
    )
    manifest = as_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI + "manifest.v1+json",
            "config": descriptor(config, "config.v1+json"),
            "layers": [layer_descriptor],
        }
    )
    in_index = descriptor(manifest, "manifest.v1+json")
    in_index["annotations"] = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }
    index = as_json({"schemaVersion": 2, "manifests": [in_index]})
    blobs = [(f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob, 0o644) for blob in (config, layer, manifest)]
    return tar([("oci-layout", b'{"imageLayoutVersion":"1.0.0"}', 0o644), ("index.json", index, 0o644), *blobs])


def pair(text):
    source, equals, destination = text.partition("=")
    if not equals or not destination.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text}: write it as FILE=/path/in/image")
    return source, destination


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT.tar")
    parser.add_argument("reference", metavar="NAME:TAG")
    parser.add_argument("entry", metavar="ENTRY")
    parser.add_argument("files", metavar="FILE=/path", nargs="+", type=pair)
    parser.add_argument("--user", default="65532:65532", help="default: 65532:65532")
    arguments = parser.parse_args()
    if ":" not in arguments.reference.rpartition("/")[2]:
        parser.error(f"{arguments.reference} has no tag: write NAME:TAG")
    data = image(arguments.reference, arguments.entry, arguments.files, arguments.user)
    temporary = arguments.out + ".tmp"
    with open(temporary, "wb") as file:
        file.write(data)
    os.replace(temporary, arguments.out)


if __name__ == "__main__":
    main()
