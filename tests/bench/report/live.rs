//! Section: a limit that changes under load.

use serde_json::Value;

use super::{Page, distinct, pick, rate_name, rows_of, share, text_of};
use crate::plots::short;
use crate::statistics::median;

/// Writes the section.
pub(super) fn write(page: &mut Page, part: &Value) {
    page.line("## A change under load\n");
    page.line(
        "One TCP connection; the limit goes from 10M to 50M and to 5M by further ADDs, and the connection goes on. \
         Beyond: the most bytes of frames that were\never ahead of the new limit within the second after the call had \
         returned. Sent again: TCP segments in the 500 ms before the change and in\nthe 500 ms from its begin on \
         (a cut may empty the queue, see [the design](design.md)). Medians.\n",
    );
    let rows = rows_of(part);
    let mut table = Vec::new();
    for direction in distinct(rows, "direction") {
        for congestion in distinct(rows, "congestion") {
            for subject in distinct(rows, "subject") {
                for to in distinct(rows, "to") {
                    let wanted = [
                        ("direction", direction.clone()),
                        ("congestion", congestion.clone()),
                        ("subject", subject.clone()),
                        ("to", to.clone()),
                    ];
                    let number = |key: &str| median(&pick(rows, &wanted, key));
                    table.push(vec![
                        text_of(&direction),
                        text_of(&congestion),
                        text_of(&subject),
                        rate_name(&to),
                        short(number("beyond_bytes")),
                        format!(
                            "{} / {}",
                            short(number("resent_before")),
                            short(number("resent_after"))
                        ),
                        format!("{} ms", short(number("ninety_percent_after_ms"))),
                        share(number("later_of_limit")),
                    ]);
                }
            }
        }
    }
    let head = [
        "direction",
        "sender",
        "",
        "new limit",
        "beyond, bytes",
        "sent again, before / after",
        "90 % of it after",
        "frames later, of the limit",
    ];
    page.table(&head, &table);
    let said = text_of(&part["reference"]["second_add"]);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    page.line(&format!("The reference answers a second ADD with `{said}`, so it has no row.\n"));
}
