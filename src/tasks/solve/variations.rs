//! Further inputs for a problem: its examples with other numbers and letters in them.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::problem::{Check, Problem};

/// Up to `count` inputs that are like those of the examples: calls of the problem's function, or texts
/// for standard input. The same problem gives the same ones.
#[must_use]
pub fn variations(problem: &Problem, count: usize) -> Vec<String> {
    let originals = problem.checks.iter().filter_map(|check| match check {
        Check::Io { input, .. } => problem.function.is_none().then_some(input.as_str()),
        Check::Assert(statement) => call(statement, problem.function.as_deref()?),
    });
    let originals: Vec<_> = originals.collect();
    let name = problem.function.as_ref().map_or(0, String::len);
    let mut rng = SmallRng::seed_from_u64(0);
    let mut found = Vec::new();
    for original in originals.iter().cycle().take(count * 4) {
        let head = if problem.function.is_some() { name } else { 0 };
        let varied = format!("{}{}", &original[..head], vary(&original[head..], &mut rng));
        if !found.contains(&varied) && !originals.contains(&varied.as_str()) {
            found.push(varied);
        }
        if found.len() == count {
            break;
        }
    }
    found
}

/// The first call of `function` in a statement, up to its closing bracket.
fn call<'a>(statement: &'a str, function: &str) -> Option<&'a str> {
    let start = statement.find(&format!("{function}("))?;
    let mut depth = 0_usize;
    let mut quote = None;
    for (at, char) in statement[start..].char_indices() {
        match (quote, char) {
            (Some(open), _) if open == char => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(char),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(&statement[start..start + at + 1]);
                }
            }
            _ => {}
        }
    }
    None
}

/// The text with other numbers, and other letters within quotes.
fn vary(text: &str, rng: &mut SmallRng) -> String {
    let mut varied = String::new();
    let mut quote = None;
    let mut chars = text.chars().peekable();
    let mut before = ' ';
    while let Some(char) = chars.next() {
        match (quote, char) {
            (Some(open), _) if open == char => quote = None,
            (None, '"' | '\'') => quote = Some(char),
            _ => {}
        }
        if char.is_ascii_digit() && !before.is_alphanumeric() && before != '.' && before != '_' {
            let mut digits = char.to_string();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let number: u64 = digits.parse().unwrap_or_default();
            let other = match rng.random_range(0..4) {
                0 => number,
                1 => number.saturating_add(1),
                2 => number.saturating_sub(1),
                _ => rng.random_range(0..=number.saturating_mul(2).min(1_000_000)),
            };
            // 0x1F is not the kind of number that is varied.
            let odd = chars.peek().is_some_and(|next| next.is_alphabetic());
            varied.push_str(&if odd { digits } else { other.to_string() });
            before = '0';
            continue;
        }
        let other = match quote {
            Some(_) if char.is_ascii_lowercase() && rng.random_bool(0.3) => {
                char::from(rng.random_range(b'a'..=b'z'))
            }
            _ => char,
        };
        varied.push(other);
        before = char;
    }
    varied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_found_whole() {
        let check = |statement: &str, expected: Option<&str>| {
            assert_eq!(call(statement, "f"), expected, "{statement}");
        };
        check("assert set(f((1, 2), [3])) == 1", Some("f((1, 2), [3])"));
        check("assert f(')', \"(\") == ''", Some("f(')', \"(\")"));
        check("assert g(1)", None);
        check("assert f(1", None);
    }

    #[test]
    fn numbers_and_quoted_letters_vary_and_nothing_else() {
        let text = "(x2, 17, 'abcdefghijk', [3.5], n_1)";
        let mut rng = SmallRng::seed_from_u64(1);
        let varied: Vec<_> = (0..20).map(|_| vary(text, &mut rng)).collect();
        let plain = |text: &str| -> String {
            let text: String = text.split('\'').step_by(2).collect();
            text.replace(|char: char| char.is_ascii_digit(), "")
        };
        assert!(
            varied.iter().all(|varied| plain(varied) == plain(text)),
            "{varied:?}"
        );
        assert!(
            varied.iter().all(|varied| varied.starts_with("(x2, ")),
            "{varied:?}"
        );
        assert!(
            varied.iter().any(|varied| !varied.contains("17")),
            "{varied:?}"
        );
        assert!(
            varied.iter().any(|varied| !varied.contains("abcdefghijk")),
            "{varied:?}"
        );
    }
}
