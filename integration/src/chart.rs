//! Bars, in the terminal and as an SVG.

use std::fmt::Write;

const SVG_WIDTH: f64 = 520.0;

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What it stands for.
    pub label: String,
    /// Its length.
    pub value: f64,
    /// What is written beside it.
    pub text: String,
    /// Its colour in the SVG.
    pub colour: &'static str,
}

/// Bars that belong together.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they are about.
    pub title: String,
    /// From top to bottom.
    pub bars: Vec<Bar>,
    /// The value of a bar of full length.
    pub longest: f64,
}

impl Group {
    /// Bars that are compared with each other only.
    #[must_use]
    pub fn new(title: &str, bars: Vec<Bar>) -> Self {
        let longest = bars.iter().map(|bar| bar.value).fold(1e-9, f64::max);
        Self {
            title: title.to_owned(),
            bars,
            longest,
        }
    }
}

/// Gives all groups the same scale.
pub fn scale_alike(groups: &mut [Group]) {
    let longest = groups.iter().map(|group| group.longest).fold(1.0, f64::max);
    for group in groups {
        group.longest = longest;
    }
}

/// Bars for the terminal.
#[must_use]
pub fn terminal(groups: &[Group]) -> String {
    let mut text = String::new();
    for group in groups {
        for bar in &group.bars {
            let filled = (bar.value / group.longest * 50.0).max(1.0);
            let cells: String = (0..50u8)
                .filter(|&cell| f64::from(cell) < filled)
                .map(|_| '█')
                .collect();
            let (title, label, beside) = (&group.title, &bar.label, &bar.text);
            writeln!(text, "{title:<8} {label:<19} {cells} {beside}").ok();
        }
        text.push('\n');
    }
    text
}

/// The same as an SVG.
#[must_use]
pub fn svg(heading: &str, groups: &[Group]) -> String {
    let mut body = String::new();
    let mut y = 50.0;
    for group in groups {
        let middle = y + 10.0 * f64::from(u32::try_from(group.bars.len()).unwrap_or(1));
        let title = &group.title;
        writeln!(
            body,
            r#"<text x="16" y="{middle}" font-weight="bold">{title}</text>"#
        )
        .ok();
        for bar in &group.bars {
            let width = (bar.value / group.longest * SVG_WIDTH).max(1.0);
            let (text_y, end) = (y + 13.0, 240.0 + width + 6.0);
            let (label, text, colour) = (&bar.label, &bar.text, bar.colour);
            writeln!(
                body,
                r#"<text x="230" y="{text_y}" text-anchor="end">{label}</text>
<rect x="240" y="{y}" width="{width:.1}" height="16" fill="{colour}"/>
<text x="{end:.1}" y="{text_y}">{text}</text>"#
            )
            .ok();
            y += 20.0;
        }
        y += 16.0;
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="900" height="{y}" font-family="sans-serif" font-size="13" fill="#1f2933">
<rect width="900" height="{y}" fill="#ffffff"/>
<text x="16" y="28" font-size="16">{heading}</text>
{body}</svg>
"##
    )
}

#[cfg(test)]
mod tests {
    use super::{Bar, Group, scale_alike, svg, terminal};

    fn bar(value: f64) -> Bar {
        Bar {
            label: "one".to_owned(),
            value,
            text: format!("{value} ms"),
            colour: "#2f9e5b",
        }
    }

    #[test]
    fn the_longest_of_a_group_has_full_length() {
        let mut groups = [
            Group::new("a", vec![bar(10.0), bar(5.0)]),
            Group::new("b", vec![bar(2.0), bar(0.0)]),
        ];
        let lengths = |groups: &[Group]| -> Vec<usize> {
            let text = terminal(groups);
            let lines = text.lines().filter(|line| !line.is_empty());
            lines.map(|line| line.matches('█').count()).collect()
        };
        assert_eq!(lengths(&groups), [50, 25, 50, 1]);
        scale_alike(&mut groups);
        assert_eq!(lengths(&groups), [50, 25, 10, 1]);
        assert_eq!(svg("all", &groups).matches("<rect").count(), 5);
    }
}
