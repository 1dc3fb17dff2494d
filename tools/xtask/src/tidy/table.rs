//! Reads a Markdown table that stands between `<!-- NAME -->` and `<!-- /NAME -->`.

/// The rows without header and rule line, each cell trimmed; `None` when the markers are missing.
pub fn rows(document: &str, name: &str) -> Option<Vec<Vec<String>>> {
    let (_, rest) = document.split_once(&format!("<!-- {name} -->"))?;
    let (body, _) = rest.split_once(&format!("<!-- /{name} -->"))?;
    let lines = body
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with('|'));
    Some(lines.skip(2).map(cells).collect())
}

/// The words between backquotes in a cell.
pub fn quoted(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|')
        .split('|')
        .map(|cell| cell.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_stands_between_the_markers() {
        let text = "x\n| a |\n<!-- t -->\n| h | i |\n|---|---|\n| `a` | `b`, `c` |\n<!-- /t -->\n| z | z |\n";
        let rows = rows(text, "t").unwrap_or_default();
        assert_eq!(rows, [["`a`", "`b`, `c`"]]);
        assert_eq!(quoted(&rows[0][1]), ["b", "c"]);
        assert!(quoted("–").is_empty());
    }

    #[test]
    fn a_missing_table_is_not_an_empty_one() {
        assert_eq!(rows("| a |", "t"), None);
    }
}
