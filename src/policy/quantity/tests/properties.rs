//! Quantities against an independent statement of the grammar: numbers that are exact by
//! construction, in unbounded integers, and a recogniser that tries every cut.

use proptest::prelude::*;

use super::super::*;
use super::ONE;

/// A natural number without bound, in 32 bit limbs, lowest first, without leading zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Natural(Vec<u32>);

impl Natural {
    fn from(number: u128) -> Self {
        let limbs = (0..4).map(|limb| (number >> (32 * limb)) as u32).collect();
        Natural(limbs).trimmed()
    }

    fn trimmed(mut self) -> Self {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        self
    }

    fn times(&self, other: &Self) -> Self {
        let mut limbs = vec![0u32; self.0.len() + other.0.len() + 1];
        for (i, a) in self.0.iter().enumerate() {
            let mut carry = 0u64;
            for j in 0..=other.0.len() {
                let b = other.0.get(j).copied().unwrap_or(0);
                let sum = u64::from(limbs[i + j]) + u64::from(*a) * u64::from(b) + carry;
                limbs[i + j] = sum as u32;
                carry = sum >> 32;
            }
        }
        Natural(limbs).trimmed()
    }

    fn power(base: u128, exponent: u32) -> Self {
        (0..exponent).fold(Natural::from(1), |power, _| power.times(&Natural::from(base)))
    }

    fn digits(text: &str) -> Self {
        let ten = Natural::from(10);
        text.bytes().fold(Natural(Vec::new()), |number, digit| {
            let Natural(mut limbs) = number.times(&ten);
            let mut carry = u32::from(digit - b'0');
            for limb in &mut limbs {
                let (sum, over) = limb.overflowing_add(carry);
                (*limb, carry) = (sum, u32::from(over));
            }
            limbs.push(carry);
            Natural(limbs).trimmed()
        })
    }

    fn below(&self, other: &Self) -> bool {
        let key =
            |number: &Self| (number.0.len(), number.0.iter().rev().copied().collect::<Vec<_>>());
        key(self) < key(other)
    }
}

/// A text and the number that it was made of: `numerator / denominator` billionths.
#[derive(Clone, Debug)]
struct Made {
    text: String,
    negative: bool,
    binary: bool,
    numerator: Natural,
    denominator: Natural,
}

/// Suffix, base, exponent.
const SUFFIXES: [(&str, u128, i32); 16] = [
    ("", 10, 0),
    ("n", 10, -9),
    ("u", 10, -6),
    ("m", 10, -3),
    ("k", 10, 3),
    ("M", 10, 6),
    ("G", 10, 9),
    ("T", 10, 12),
    ("P", 10, 15),
    ("E", 10, 18),
    ("Ki", 2, 10),
    ("Mi", 2, 20),
    ("Gi", 2, 30),
    ("Ti", 2, 40),
    ("Pi", 2, 50),
    ("Ei", 2, 60),
];

fn made() -> impl Strategy<Value = Made> {
    let number = prop_oneof![
        ("[0-9]{1,24}", "(\\.[0-9]{0,24})?"),
        ("[0-9]{0,3}", "\\.[0-9]{1,6}"),
        ("[1-9][0-9]{80}", "(\\.[0-9]{80})?"),
        // Near a whole billionth, where rounding shows.
        ("[0-9]{1,3}", "\\.[0-9]{3}0{6,9}[01]?"),
    ];
    let exponent = ("[eE]", prop_oneof![Just(""), Just("+"), Just("-")], "0{0,3}", 0..60i32)
        .prop_map(|(e, sign, zeros, exponent)| {
            let value = if sign == "-" { -exponent } else { exponent };
            (format!("{e}{sign}{zeros}{exponent}"), 10, value)
        });
    let suffix = prop_oneof![
        proptest::sample::select(SUFFIXES.to_vec()).prop_map(|(s, b, e)| (s.to_owned(), b, e)),
        exponent
    ];
    (prop_oneof![Just(""), Just("+"), Just("-")], number, suffix).prop_map(
        |(sign, (whole, part), (suffix, base, exponent))| {
            let places = part.len().saturating_sub(1) as u32;
            let digits = Natural::digits(&format!("{whole}{}", part.trim_start_matches('.')));
            let up = Natural::power(base, exponent.max(0) as u32);
            let down = Natural::power(base, exponent.min(0).unsigned_abs());
            Made {
                text: format!("{sign}{whole}{part}{suffix}"),
                negative: sign == "-",
                binary: base == 2,
                numerator: digits.times(&up).times(&Natural::from(ONE)),
                denominator: Natural::power(10, places).times(&down),
            }
        },
    )
}

/// The recogniser: the grammar, word by word. A text is a quantity if it can be cut into a signed
/// number and a suffix at any place.
fn is_quantity(text: &str) -> bool {
    let signed = |text: &str, of: fn(&str) -> bool| {
        of(text) || text.strip_prefix('+').is_some_and(of) || text.strip_prefix('-').is_some_and(of)
    };
    fn digits(text: &str) -> bool {
        !text.is_empty() && text.chars().all(|c| "0123456789".contains(c))
    }
    fn number(text: &str) -> bool {
        let or_nothing = |text: &str| text.is_empty() || digits(text);
        digits(text)
            || text
                .split_once('.')
                .is_some_and(|(whole, part)| text != "." && or_nothing(whole) && or_nothing(part))
    }
    let suffix = |text: &str| {
        SUFFIXES.iter().any(|(suffix, _, _)| *suffix == text)
            || text.strip_prefix('e').is_some_and(|text| signed(text, digits))
            || text.strip_prefix('E').is_some_and(|text| signed(text, digits))
    };
    let cuts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    cuts.into_iter().any(|at| signed(&text[..at], number) && suffix(&text[at..]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Given a number made of a text, when the text is read, then the answer is the least count of
    /// billionths that is not below the number. Said without a division: (n - 1) x d < num <= n x d.
    #[test]
    fn every_quantity_is_rounded_up_to_its_billionth(made in made()) {
        let quantity = parse(&made.text).unwrap();
        let nanos = quantity.nanos();
        let scaled = |nanos: u128| Natural::from(nanos).times(&made.denominator);
        let capped = if made.binary { nanos == BINARY_CAP } else { nanos == u128::MAX };
        if nanos > 0 {
            prop_assert!(scaled(nanos - 1).below(&made.numerator), "{nanos} is too much");
        }
        prop_assert!(capped || !scaled(nanos).below(&made.numerator), "{nanos} is too little");
        prop_assert_eq!(quantity.is_negative(), made.negative && nanos > 0);
        prop_assert!(is_quantity(&made.text), "the recogniser refuses it");
    }

    /// The integer is the least one that is not below the number, also below zero.
    #[test]
    fn the_integer_is_the_least_that_is_not_below(
        nanos in prop_oneof![0..5 * ONE, any::<u128>()],
        negative: bool,
    ) {
        let ceil = Quantity { negative: negative && nanos > 0, nanos }.ceil();
        let count = ceil.unsigned_abs();
        if negative {
            // count x 10^9 <= nanos < (count + 1) x 10^9
            prop_assert!(ceil <= 0 && count * ONE <= nanos);
            prop_assert!(((count + 1).checked_mul(ONE)).is_none_or(|next| nanos < next));
        } else {
            prop_assert!(ceil >= 0 && count.checked_mul(ONE).is_none_or(|this| nanos <= this));
            prop_assert!(nanos == 0 || (count - 1) * ONE < nanos);
        }
    }

    /// Given pieces of quantities in any order, both readers agree on what is one.
    #[test]
    fn pieces_are_a_quantity_exactly_if_the_grammar_says_so(pieces in proptest::collection::vec(
        prop_oneof![
            4 => "[0-9]{1,3}",
            2 => proptest::sample::select(vec![".", "+", "-", "e", "E"]).prop_map(str::to_owned),
            2 => proptest::sample::select(SUFFIXES.to_vec()).prop_map(|(suffix, _, _)| suffix.to_owned()),
            1 => proptest::sample::select(vec!["i", "K", "Q", " ", "\n", "é", "ki"]).prop_map(str::to_owned),
        ], 0..5)) {
        let text = pieces.concat();
        let read = parse(&text);
        // A run of digits can make an exponent of up to 12 digits: in the grammar, yet refused.
        prop_assume!(!matches!(read, Err(QuantityError::Exponent { .. })));
        prop_assert_eq!(read.is_ok(), is_quantity(&text), "{:?}", text);
    }

    /// Any short text over the letters of the grammar.
    #[test]
    fn letters_are_a_quantity_exactly_if_the_grammar_says_so(text in "[-+.0-9eEinumkKMGTP]{0,6}") {
        prop_assert_eq!(parse(&text).is_ok(), is_quantity(&text), "{:?}", text);
    }

    /// Any text at all: an answer and no panic, and the error stays short and printable.
    #[test]
    fn hostile_text_gets_a_short_answer(text in "\\PC{0,300}|[0-9]{250,260}.{0,9}|[0-9]{1,3}(?s:.){0,300}") {
        if let Err(error) = parse(&text) {
            let message = error.to_string();
            prop_assert!(message.chars().count() <= 100, "{}", message);
            prop_assert!(!message.chars().any(char::is_control), "{:?}", message);
        }
    }
}
