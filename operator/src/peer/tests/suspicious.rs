//! Changes that may be an attack or an accident: what is one, who is asked, and what an answer counts for.

use super::*;

#[test]
fn a_change_that_smells_is_known_from_one_that_does_not() {
    let before = published(same).manifest;
    type Change = fn(&mut Value);
    let table: [(&str, Change, &str, &str); 10] = [
        ("nothing", same, "", ""),
        ("a key added", added, "batch-signing key \"new\" added", ""),
        (
            "a key replaced",
            replaced,
            "replaced under its id",
            "replaced under its id",
        ),
        (
            "all keys other",
            |m| m["batch-signing-public-keys"] = json!({"new": key(0)}),
            "removed",
            "no batch-signing key of before is left",
        ),
        (
            "the same key under another id",
            |m| m["batch-signing-public-keys"] = json!({"new": m["batch-signing-public-keys"][KEY_ID].clone()}),
            "\"new\" added",
            "",
        ),
        (
            "expiration",
            |m| m["batch-signing-public-keys"][KEY_ID]["expiration"] = json!("2124-06-30T00:00:00Z"),
            "expires 2124-06-30T00:00:00Z, was 2123-06-30T00:00:00Z",
            "",
        ),
        (
            "another bucket",
            |m| m["peer-validation-bucket"] = json!("s3://us-west-1/evil"),
            "peer-validation-bucket moved: s3://us-west-1/evil, was s3://us-west-1/prio",
            "peer-validation-bucket moved",
        ),
        (
            "another store",
            |m| m["ingestion-bucket"] = json!("s3://us-west-1/prio-demo-us-ct-g-enpa-ingestion"),
            "ingestion-bucket moved",
            "ingestion-bucket moved",
        ),
        (
            "another folder of the bucket",
            |m| m["ingestion-bucket"] = json!("gs://prio-demo-us-ct-g-enpa-ingestion/inner"),
            "ingestion-bucket moved",
            "",
        ),
        (
            "another role",
            |m| m["peer-validation-identity"] = json!("arn:aws:iam::210987654321:role/demo"),
            "peer-validation-identity replaced",
            "peer-validation-identity replaced",
        ),
    ];
    for (name, change, told, smells) in table {
        let difference = Difference::between(&before, &published(change).manifest, &[]);
        let (told_all, suspicious) = (difference.changes.join("; "), difference.suspicious.join("; "));
        assert!(
            told_all.contains(told) && told_all.is_empty() == told.is_empty(),
            "{name}: {told_all}"
        );
        assert!(
            suspicious.contains(smells) && suspicious.is_empty() == smells.is_empty(),
            "{name}: {suspicious}"
        );
    }
    let more = published(added).manifest;
    let difference = Difference::between(&more, &before, &[]);
    assert!(
        difference.suspicious[0].contains("fewer batch-signing keys than before: 1, were 2"),
        "{difference:?}"
    );
    let fewer_documents = PeerManifest {
        documents: before.documents[..1].to_vec(),
        ..before.clone()
    };
    let difference = Difference::between(&before, &fewer_documents, &[]);
    assert!(
        difference.changes[0].contains("read from global-manifest.json instead of"),
        "{difference:?}"
    );
}

#[test]
fn a_change_that_smells_waits_for_its_own_digest() {
    let good = decide(&peer(|_| {}), &Sight::Published(published(same)), at(0));
    let change = Sight::Published(published(replaced));
    let held = decide(&after(&good, |_| {}), &change, at(10));
    assert_eq!(
        said(&held, MANIFEST_CURRENT),
        expected("False", reasons::CHANGE_HELD, 10)
    );
    assert_eq!(said(&held, READY), expected("True", reasons::OK, 0));
    assert_eq!(held.status.manifest, good.status.manifest);
    let waits = held.status.held.clone().unwrap();
    assert_eq!(
        (waits.since.as_str(), waits.suspicious.len()),
        (at(10).to_string().as_str(), 2)
    );
    let command = format!(
        "kubectl -n prio annotate peer other --overwrite {APPROVE_MANIFEST_ANNOTATION}={}",
        waits.digest
    );
    assert!(
        held.news[0].warning && held.news[0].message.contains(&command),
        "{:?}",
        held.news
    );

    let again = decide(&after(&held, |_| {}), &change, at(20));
    assert_eq!((&again.status, again.news.len()), (&held.status, 0));
    // Another change is told again, and waits anew.
    let other = published(|m| {
        replaced(m);
        m["peer-validation-bucket"] = json!("gs://evil");
    });
    let other = decide(&after(&held, |_| {}), &Sight::Published(other), at(30));
    assert_eq!(told(&other), [(true, reasons::CHANGE_HELD)]);
    assert_eq!(other.status.held.as_ref().unwrap().since, at(30).to_string());
    // While the server is down the question stays; when they take it back it is gone.
    let down = decide(&after(&held, |_| {}), &Sight::Failed("no".into()), at(40));
    assert_eq!(down.status.held, held.status.held);
    let back = decide(&after(&held, |_| {}), &Sight::Published(published(same)), at(40));
    assert_eq!((&back.status.held, told(&back)), (&None, vec![(false, reasons::OK)]));

    let annotated = |digest: &str| {
        let digest = digest.to_owned();
        move |peer: &mut Value| peer["metadata"]["annotations"] = json!({APPROVE_MANIFEST_ANNOTATION: digest})
    };
    let wrong = decide(&after(&held, annotated(digest(&good))), &change, at(50));
    assert_eq!(
        wrong.status.manifest, good.status.manifest,
        "another digest approves nothing"
    );
    let approved = decide(&after(&held, annotated(&waits.digest)), &change, at(60));
    assert_eq!(
        (digest(&approved), &approved.status.held),
        (waits.digest.as_str(), &None)
    );
    assert_eq!(
        told(&approved),
        [(false, reasons::MANIFEST_CHANGED), (false, reasons::OK)]
    );
    assert_eq!(
        approved.status.manifest.as_ref().unwrap().accepted_at,
        at(60).to_string()
    );
}

fn approve(value: &str) -> impl Fn(&mut Value) {
    let value = value.to_owned();
    move |peer: &mut Value| peer["metadata"]["annotations"] = json!({APPROVE_MANIFEST_ANNOTATION: value})
}

#[test]
fn an_approval_is_used_up() {
    let both = |m: &mut Value| {
        replaced(m);
        added(m);
    };
    let (change, more) = (Sight::Published(published(replaced)), Sight::Published(published(both)));
    let good = decide(&peer(|_| {}), &Sight::Published(published(same)), at(0));
    let held = decide(&after(&good, |_| {}), &change, at(10));
    let a = held.status.held.clone().unwrap().digest;
    let taken = decide(&after(&held, approve(&a)), &change, at(20));
    assert_eq!(
        (digest(&taken), &taken.status.approvals_used),
        (a.as_str(), &vec![a.clone()])
    );
    let stays = decide(&after(&taken, approve(&a)), &change, at(25));
    assert_eq!((&stays.status, stays.news.len()), (&taken.status, 0));
    // Another one follows without a question, and a server that goes back is asked about, although the annotation is there.
    let next = decide(&after(&stays, approve(&a)), &more, at(30));
    assert_ne!(digest(&next), a);
    let back = decide(&after(&next, approve(&a)), &change, at(40));
    assert_eq!(
        said(&back, MANIFEST_CURRENT),
        expected("False", reasons::CHANGE_HELD, 40)
    );
    let command = format!("{APPROVE_MANIFEST_ANNOTATION}={a}:2. It is");
    assert!(back.news[0].message.contains(&command), "{:?}", back.news);
    assert_eq!(back.status.held.as_ref().unwrap().approval, format!("{a}:2"));
    // Nor is it approved by anything that was used up, in whatever order that comes, or by taking the annotation away.
    let without = decide(&after(&next, |_| {}), &change, at(40));
    assert_eq!(without.status.held.as_ref().unwrap().approval, format!("{a}:2"));
    let again = decide(&after(&back, approve(&format!("{a}:2"))), &change, at(50));
    assert_eq!((digest(&again), &again.status.held), (a.as_str(), &None));
    let next = decide(&after(&again, approve(&format!("{a}:2"))), &more, at(60));
    let older = decide(&after(&next, approve(&a)), &change, at(65));
    assert!(older.status.held.is_some(), "GitOps went back to the one before");
    let third = decide(&after(&next, approve(&format!("{a}:2"))), &change, at(70));
    assert!(
        third.news[0].message.contains(&format!("={a}:3. It is")),
        "{:?}",
        third.news
    );

    // One for a manifest that came without a question is used up as well.
    let unasked = decide(&peer(approve(&a)), &change, at(0));
    let next = decide(&after(&unasked, approve(&a)), &more, at(10));
    let back = decide(&after(&next, approve(&a)), &change, at(20));
    assert_eq!(
        said(&back, MANIFEST_CURRENT),
        expected("False", reasons::CHANGE_HELD, 20)
    );
}

#[test]
fn an_id_that_comes_back_must_have_its_key() {
    let with = |keys: &[(&str, usize)]| {
        let keys: Vec<(String, usize)> = keys.iter().map(|(id, point)| ((*id).to_owned(), *point)).collect();
        Sight::Published(published(move |m| {
            for (id, point) in &keys {
                m["batch-signing-public-keys"][id] = key(*point);
            }
        }))
    };
    let first = decide(&peer(|_| {}), &with(&[("old", 0)]), at(0));
    let gone = decide(&after(&first, |_| {}), &with(&[("new", 0)]), at(10));
    assert_eq!(
        said(&gone, MANIFEST_CURRENT),
        expected("True", reasons::OK, 0),
        "as many as before"
    );
    let removed = &gone.status.removed_keys;
    assert!(removed.len() == 1 && removed[0].id == "old", "{removed:?}");
    let same_key = decide(&after(&gone, |_| {}), &with(&[("new", 0), ("old", 0)]), at(20));
    assert_eq!(said(&same_key, MANIFEST_CURRENT), expected("True", reasons::OK, 0));
    assert_eq!(same_key.status.removed_keys, []);
    let other_key = decide(&after(&gone, |_| {}), &with(&[("new", 0), ("old", 1)]), at(20));
    assert_eq!(
        said(&other_key, MANIFEST_CURRENT),
        expected("False", reasons::CHANGE_HELD, 20)
    );
    let held = other_key.status.held.as_ref().unwrap();
    assert!(
        held.suspicious.len() == 1 && held.suspicious[0].contains("\"old\" comes back with another key"),
        "{held:?}"
    );
    // Another server's ids are none of it.
    let elsewhere = |peer: &mut Value| peer["spec"]["manifestBaseUrl"] = json!("https://new.example");
    let moved = decide(&after(&gone, elsewhere), &with(&[("new", 0), ("old", 1)]), at(20));
    assert_eq!((&moved.status.held, moved.status.removed_keys.len()), (&None, 0));
    // However many come and go, only so many are remembered: the last.
    let mut now = first;
    for number in 0..100 {
        now = decide(
            &after(&now, |_| {}),
            &with(&[(format!("k{number}").as_str(), 0)]),
            at(30 + number),
        );
    }
    let removed = &now.status.removed_keys;
    assert_eq!((removed.len(), removed[63].id.as_str()), (64, "k98"));
}

#[test]
fn a_change_is_taken_at_once_where_nobody_is_to_be_asked() {
    let good = decide(&peer(|_| {}), &Sight::Published(published(same)), at(0));
    let plain = decide(&after(&good, |_| {}), &Sight::Published(published(added)), at(10));
    assert_eq!(told(&plain), [(false, reasons::MANIFEST_CHANGED)]);
    let changes = [
        |peer: &mut Value| peer["spec"]["suspiciousChanges"] = json!("Accept"),
        |peer: &mut Value| peer["spec"]["manifestBaseUrl"] = json!("https://new.example"),
        |peer: &mut Value| peer["spec"]["instance"] = json!("us-pa"),
    ];
    for change in changes {
        let taken = decide(&after(&good, change), &Sight::Published(published(replaced)), at(10));
        assert_ne!(digest(&taken), digest(&good));
        assert!(
            taken.news[0].message.contains("replaced under its id"),
            "{:?}",
            taken.news
        );
    }
    let other_place = |peer: &mut Value| peer["spec"]["manifestBaseUrl"] = json!("https://new.example");
    let failed = decide(&after(&good, other_place), &Sight::Failed("mistyped".into()), at(10));
    assert_eq!(
        failed.status.manifest, good.status.manifest,
        "a mistyped address takes nothing away"
    );
}
