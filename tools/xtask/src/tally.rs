//! How many tests a program says it ran.
//!
//! Two forms are understood: `cargo test`'s `test result: …` lines, which are summed, and the project's own, a line
//! that is exactly `N passed, M failed` or `N passed, M failed, K skipped`, of which the last one counts.

use std::ops::AddAssign;

/// Tests by outcome.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// Sums what `output` reports; `None` when it reports nothing.
pub fn parse(output: &str) -> Option<Tally> {
    let mut cargo: Option<Tally> = None;
    let mut own = None;
    for line in output.lines() {
        if let Some(rest) = line.trim_end().strip_prefix("test result: ") {
            let counts = rest.split_once(". ").map_or("", |(_, counts)| counts);
            if let Some(tally) = fields(counts, "; ", "ignored") {
                *cargo.get_or_insert_default() += tally;
            }
        } else if let Some(tally) = fields(line.trim_end(), ", ", "skipped") {
            own = Some(tally);
        }
    }
    match (cargo, own) {
        (Some(mut sum), Some(tally)) => {
            sum += tally;
            Some(sum)
        }
        (sum, tally) => sum.or(tally),
    }
}

/// `N passed<sep>M failed[<sep>K <skip>…]`.
fn fields(text: &str, separator: &str, skip: &str) -> Option<Tally> {
    let mut parts = text.split(separator);
    let mut tally = Tally {
        passed: parts.next()?.strip_suffix(" passed")?.parse().ok()?,
        failed: parts.next()?.strip_suffix(" failed")?.parse().ok()?,
        skipped: 0,
    };
    if let Some(part) = parts.next() {
        tally.skipped = part.strip_suffix(skip)?.trim_end().parse().ok()?;
    }
    Some(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_lines_of_cargo_test() {
        let output = "\
running 2 tests
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";
        assert_eq!(
            parse(output),
            Some(Tally {
                passed: 5,
                failed: 1,
                skipped: 1
            })
        );
    }

    #[test]
    fn takes_the_last_line_of_our_own_form() {
        assert_eq!(
            parse("1 passed, 0 failed\nx\n10 passed, 2 failed, 3 skipped\n"),
            Some(Tally {
                passed: 10,
                failed: 2,
                skipped: 3
            })
        );
        assert_eq!(
            parse("7 passed, 0 failed"),
            Some(Tally {
                passed: 7,
                failed: 0,
                skipped: 0
            })
        );
    }

    #[test]
    fn prose_is_not_a_report() {
        assert_eq!(
            parse("it says 7 passed, 0 failed today\n7 passed, none failed\n-1 passed, 0 failed\n"),
            None
        );
        assert_eq!(parse(""), None);
    }

    #[test]
    fn prints_what_it_parses() {
        for tally in [
            Tally {
                passed: 3,
                failed: 0,
                skipped: 0,
            },
            Tally {
                passed: 3,
                failed: 1,
                skipped: 9,
            },
        ] {
            assert_eq!(parse(&tally.to_string()), Some(tally));
        }
    }
}
