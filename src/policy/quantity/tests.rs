//! The grammar and the rounding of Kubernetes, said three times: a table of Kubernetes' own cases
//! here; numbers that are exact by construction, and a recogniser that reads like the grammar, in
//! properties.rs.

mod properties;

use super::*;

const MICRO: u128 = 1_000;
const MILLI: u128 = 1_000_000;
const ONE: u128 = 1_000_000_000;

#[test]
fn the_cases_of_kubernetes_read_the_same() {
    // Given what quantity_test.go (TestQuantityParse) documents, when read, then the same number.
    for (text, nanos) in [
        ("0", 0),
        ("0n", 0),
        ("0u", 0),
        ("0m", 0),
        ("0Ki", 0),
        ("0k", 0),
        ("0Ti", 0),
        ("0T", 0),
        ("1", ONE),
        ("1Ki", ONE << 10),
        ("8Ki", ONE << 13),
        ("7Mi", (7 * ONE) << 20),
        ("6Gi", (6 * ONE) << 30),
        ("5Ti", (5 * ONE) << 40),
        ("4Pi", (4 * ONE) << 50),
        ("3Ei", (3 * ONE) << 60),
        ("100Ti", (100 * ONE) << 40),
        ("5n", 5),
        ("4u", 4 * MICRO),
        ("3m", 3 * MILLI),
        ("9", 9 * ONE),
        ("8k", 8_000 * ONE),
        ("50k", 50_000 * ONE),
        ("7M", 7_000_000 * ONE),
        ("6G", 6 * ONE * ONE),
        ("300T", 300_000 * ONE * ONE),
        ("2P", 2_000_000 * ONE * ONE),
        ("1E", ONE * ONE * ONE),
        ("1E-3", MILLI),
        ("1e3", 1_000 * ONE),
        ("1E6", 1_000_000 * ONE),
        ("1E18", ONE * ONE * ONE),
        ("1e14", 100_000 * ONE * ONE),
        ("100.035k", 100_035 * ONE),
        ("0.001", MILLI),
        ("0.0005k", ONE / 2),
        ("0.00050k", ONE / 2),
        ("0.50000", ONE / 2),
        ("0.5e0", ONE / 2),
        ("0.5e-1", ONE / 20),
        ("0.5e-2", ONE / 200),
        ("10.035M", 10_035_000 * ONE),
        ("1.3E+6", 1_300_000 * ONE),
        ("1.53E12", 1_530 * ONE * ONE),
        ("9.01", 9_010 * MILLI),
        ("7.123456M", 7_123_456 * ONE),
        ("6.987654321G", 6_987_654_321 * ONE),
        ("1.01E", 1_010_000_000 * ONE * ONE),
        // Finer than a billionth: up.
        ("3.001n", 4),
        ("1.1E-9", 2),
        ("0.0000000001", 1),
        ("0.00000000050", 1),
        ("0.5e-9", 1),
        ("0.9n", 1),
        ("0.00000012345", 124),
        ("0.00000012354", 124),
        ("1e-400", 1),
        // Binary suffixes cap, decimal ones do not.
        ("9Ei", i64::MAX as u128 * ONE),
        ("9223372036854775807Ki", i64::MAX as u128 * ONE),
        ("12E", 12 * ONE * ONE * ONE),
        ("100.035Ki", 102_435_840 * MILLI),
        ("0.5Mi", ONE << 19),
        ("0.05Gi", 53_687_091_200 * MILLI),
        ("0.025Ti", 27_487_790_694_400 * MILLI),
        ("0.000000000001Ki", 2),
        (".001", MILLI),
        (".0001k", 100 * MILLI),
        ("1.", ONE),
        ("1.G", ONE * ONE),
        // From TestParseQuantityString and the text of the grammar.
        ("+1.025Ti", 1_126_999_418_470_400 * MILLI),
        ("+5", 5 * ONE),
        ("00012", 12 * ONE),
        ("1e05", 100_000 * ONE),
        ("1e-0", ONE),
    ] {
        assert_eq!(parse(text), Ok(Quantity { negative: false, nanos }), "{text}");
    }
}

#[test]
fn integers_are_rounded_up() {
    for (text, ceil) in [
        ("10M", 10_000_000),
        ("999.5", 1_000),
        ("999.0000000001", 1_000),
        ("1m", 1),
        ("0", 0),
        ("-0", 0),
        ("-1", -1),
        ("-1.5", -1),
        ("-0.5", 0),
        ("1P", 1_000_000_000_000_000),
        ("1.0000000000000001P", 1_000_000_000_000_001),
        ("1e29", 100_000_000_000_000_000_000_000_000_000),
    ] {
        assert_eq!(parse(text).unwrap().ceil(), ceil, "{text}");
    }
    assert!(!parse("-0").unwrap().is_negative());
    assert!(parse("-1n").unwrap().is_negative());
    assert!(!parse("-1n").unwrap().is_zero());
}

#[test]
fn huge_numbers_saturate_and_cost_nothing() {
    let nines = "9".repeat(MAX_LENGTH);
    for text in ["1e30", "1e2147483647", "999999999999E", nines.as_str()] {
        let quantity = parse(text).unwrap();
        assert_eq!(quantity.nanos(), u128::MAX, "{text}");
        assert!(quantity.ceil() > i128::from(u64::MAX), "{text}");
    }
    assert_eq!(parse("1e-2147483648").unwrap().nanos(), 1);
    assert_eq!(parse("0e2147483647").unwrap().nanos(), 0);
    assert_eq!(parse("-1e30").unwrap().ceil(), -((u128::MAX / ONE) as i128));
    // The longest text of the most that the number can grow by a binary suffix.
    let capped = format!("{}Ei", "9".repeat(MAX_LENGTH - 2));
    assert_eq!(parse(&capped).unwrap().nanos(), BINARY_CAP);
}

#[test]
fn what_is_no_quantity_says_why() {
    let unknown = |suffix: &str| QuantityError::UnknownSuffix { suffix: format!("{suffix:?}") };
    for (text, error) in [
        ("", QuantityError::Empty),
        (" ", QuantityError::NoNumber),
        (" 10M", QuantityError::NoNumber),
        ("Non-Numeric", QuantityError::NoNumber),
        ("++1", QuantityError::NoNumber),
        ("\u{661}", QuantityError::NoNumber),
        ("10M ", unknown("M ")),
        ("10Q", unknown("Q")),
        ("10K", unknown("K")),
        ("10 M", unknown(" M")),
        ("10Mbit", unknown("Mbit")),
        ("10ki", unknown("ki")),
        ("10i", unknown("i")),
        ("10mi", unknown("mi")),
        ("10kM", unknown("kM")),
        ("10k5", unknown("k5")),
        ("1.1.1", unknown(".1")),
        ("1,5", unknown(",5")),
        ("1_0", unknown("_0")),
        ("0x10", unknown("x10")),
        ("1+5", unknown("+5")),
        ("1e", unknown("e")),
        ("1e+", unknown("e+")),
        ("1e++1", unknown("e++1")),
        ("1ee5", unknown("ee5")),
        ("1e1.5", unknown("e1.5")),
        ("1e5k", unknown("e5k")),
        ("1\0", QuantityError::UnknownSuffix { suffix: "\"\\0\"".to_owned() }),
        // Where Kubernetes' code takes more than its grammar (see the module's comment).
        ("+", QuantityError::NoNumber),
        (".", QuantityError::NoNumber),
        ("-.", QuantityError::NoNumber),
        ("Ki", QuantityError::NoNumber),
        (".k", QuantityError::NoNumber),
        ("e5", QuantityError::NoNumber),
        ("1e4294967299", QuantityError::Exponent { exponent: "\"4294967299\"".to_owned() }),
        ("1e-99999999999999999999", {
            QuantityError::Exponent { exponent: "\"-99999999999999999999\"".to_owned() }
        }),
    ] {
        assert_eq!(parse(text), Err(error), "{text:?}");
    }
    let long = "1".repeat(MAX_LENGTH + 1);
    assert_eq!(parse(&long), Err(QuantityError::TooLong { length: MAX_LENGTH + 1 }));
}
