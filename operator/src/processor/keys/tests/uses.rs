//! Which windows need a key, and until when that is known.

use super::*;

#[test]
fn a_window_needs_its_keys_until_it_is_over_and_again_while_it_is_released_once_more() {
    let processor = processor();
    let mut schedule = schedule(&processor);
    let (id, now) = (window(WINDOW), at("12:00"));
    let marks = [(id.clone(), at("04:00"))];
    let needed = |mailboxes: &Mailboxes, schedule: &crate::window::Schedule, marks: &[_]| {
        let inventory = mailboxes.inventory(schedule, now);
        usage(marks, &inventory, schedule, now).needed_by.is_some()
    };
    let open = Mailboxes::default().planned(WINDOW, "04:00");
    assert!(needed(&open, &schedule, &marks));
    let over = Mailboxes::default().finished(WINDOW, Verdict::Summed, "05:00");
    assert!(!needed(&over, &schedule, &marks));
    // A mark of a further release is that release's.
    let again = id.again(2).unwrap();
    let second = [(again.clone(), at("06:00"))];
    let begun = over.clone().planned(&again.path(), "06:00");
    assert!(needed(&begun, &schedule, &second) && needed(&begun, &schedule, &marks));
    let ended = begun.finished(&again.path(), Verdict::Summed, "07:00");
    assert!(!needed(&ended, &schedule, &second) && !needed(&ended, &schedule, &marks));
    // Leave for one that didn't begin yet.
    let leave = |expires_at| crate::window::Override {
        id: again.clone(),
        cutoff: at("06:00"),
        expires_at,
        reason: "late batches".into(),
        approved_by: None,
    };
    schedule.overrides = [(id.clone(), leave(at("13:00")))].into();
    assert!(needed(&over, &schedule, &marks));
    assert!(!needed(&ended, &schedule, &marks));
    schedule.overrides = [(id.clone(), leave(at("11:00")))].into();
    assert!(!needed(&over, &schedule, &marks));
}

#[test]
fn what_came_since_all_windows_were_listed_is_not_known_to_be_taken_in() {
    let schedule = schedule(&processor());
    let ids = [batch("kittens-seen", "01/00", 1)];
    let (now, listed) = (at("02:30"), at("02:20"));
    let waiting = Mailboxes::default().ingested(&ids, "02:10");
    let taken = waiting.clone().delivered(&ids, "02:15");
    assert_eq!(observed_until(&waiting.inventory(&schedule, now), listed), at("02:10"));
    assert_eq!(observed_until(&taken.inventory(&schedule, now), listed), listed);
}
