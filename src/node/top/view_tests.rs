use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::node::samples;

/// The screen, line by line.
fn screen(view: &View, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view.draw(frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

/// Of this name, held back so hard, with so many packets dropped.
fn row(name: &str, held_back: f64, drops: u32) -> Row {
    let mut row = samples::rows().remove(0);
    row.shaped.owner.name = name.into();
    row.shaped.limits[1] = None;
    row.paces[1] = None;
    if let Some(pace) = &mut row.paces[0] {
        pace.held_back = held_back;
        pace.bits_per_second = held_back * 8e6;
        pace.drops = drops;
    }
    row
}

/// The pods from above to below.
fn pods(view: &View) -> Vec<String> {
    let lines = screen(view, 140, 20);
    let pods = lines.iter().filter_map(|line| line.strip_prefix("shop/"));
    pods.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn who_is_held_back_hardest_comes_first_and_the_key_changes_that() {
    let mut view = View::default();
    view.take(vec![row("idle", 0.0, 0), row("some", 0.4, 9), row("full", 1.0, 2)], 0);
    assert_eq!(pods(&view), ["full", "some", "idle"]);
    view.next_order();
    assert_eq!(pods(&view), ["full", "some", "idle"], "by rate");
    view.next_order();
    assert_eq!(pods(&view), ["some", "full", "idle"], "by drops");
    view.next_order();
    assert_eq!(pods(&view), ["full", "idle", "some"], "by name");
}

#[test]
fn a_line_says_what_and_how_much_and_the_last_readings() {
    let mut view = View::default();
    for held_back in [0.0, 0.5, 1.0] {
        view.take(vec![row("cart", held_back, 3)], 1);
    }
    let lines = screen(&view, 140, 6);
    assert_eq!(lines[0], "pod-bandwidth   limits: 1   holding back: 1   pods not looked into: 1");
    let words: Vec<&str> = lines[2].split_whitespace().collect();
    let expected = "shop/cart eth0 ingress host (root) 8 Mbit/s 8 Mbit/s 100 % 3 3.04 kB ▅█";
    assert_eq!(words.join(" "), expected, "{lines:#?}");
    assert!(lines[5].starts_with("q quit"), "{lines:#?}");
}

#[test]
fn lines_scroll_and_never_away() {
    let mut view = View::default();
    view.take((0..9).map(|n| row(&format!("p{n}"), 0.0, 0)).collect(), 0);
    view.scroll(2);
    assert_eq!(pods(&view)[0], "p2");
    view.scroll(100);
    assert_eq!(pods(&view), ["p8"]);
    view.scroll(isize::MIN);
    assert_eq!(pods(&view).len(), 9);
    // fewer pods than lines that were scrolled: the last one stays in sight
    view.scroll(8);
    view.take(vec![row("p0", 0.0, 0)], 0);
    assert_eq!(pods(&view), ["p0"]);
}

#[test]
fn no_screen_is_too_small_and_none_is_empty_without_a_word() {
    let mut view = View::default();
    assert_eq!(screen(&view, 40, 3)[1], "Nothing is limited here.");
    view.take(samples::rows(), 0);
    for (width, height) in [(1, 1), (2, 1), (10, 2), (20, 3), (80, 24), (300, 100)] {
        screen(&view, width, height);
    }
}

#[test]
fn nothing_is_kept_of_pods_that_are_gone() {
    let mut view = View::default();
    for _ in 0..2 * HISTORY {
        view.take(vec![row("cart", 1.0, 0)], 0);
    }
    assert_eq!(view.history.values().map(VecDeque::len).collect::<Vec<_>>(), [HISTORY]);
    view.take(Vec::new(), 0);
    assert!(view.history.is_empty());
}
