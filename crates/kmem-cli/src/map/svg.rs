//! A picture as SVG.

use std::fmt::Write;

use super::picture::{Colour, Face, Item, PAPER, Picture};

/// The text of the file. Boxes of a colour that touch are one path, so that the file is small.
pub fn svg(picture: &Picture) -> String {
    let Picture { width, height, title, items } = picture;
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\">\n<title>{}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"{}\"/>\n\
         <g font-family=\"'Noto Sans Mono','DejaVu Sans Mono',Menlo,Consolas,monospace\">",
        escaped(title),
        hex(PAPER),
    );
    let mut path: Option<(Colour, String)> = None;
    let mut last: Option<(u32, u32, u32, u32)> = None;
    for item in items {
        match item {
            Item::Box { x, y, width, height, colour } => {
                if path.as_ref().is_none_or(|(of, _)| of != colour) {
                    end_path(&mut out, path.replace((*colour, String::new())));
                    last = None;
                }
                let Some((_, steps)) = &mut path else { continue };
                // One that repeats the last a cell further on is written by its distance alone.
                match last {
                    Some((at, row, w, h)) if (row, w, h) == (*y, *width, *height) => {
                        let _ = write!(steps, "m{} 0h{w}v{h}h-{w}z", i64::from(*x) - i64::from(at));
                    }
                    _ => {
                        let _ = write!(steps, "M{x} {y}h{width}v{height}h-{width}z");
                    }
                }
                last = Some((*x, *y, *width, *height));
            }
            Item::Text { x, y, face, colour, text } => {
                end_path(&mut out, path.take());
                last = None;
                let (baseline, size) = match face {
                    Face::Title => (y + 18, 18),
                    Face::Heading | Face::Plain => (y + 12, 12),
                };
                let length = text.chars().count() as u32 * face.advance();
                let weight = if face.is_bold() { " font-weight=\"bold\"" } else { "" };
                let _ = writeln!(
                    out,
                    "<text x=\"{x}\" y=\"{baseline}\" font-size=\"{size}\"{weight} fill=\"{}\" \
                     textLength=\"{length}\">{}</text>",
                    hex(*colour),
                    escaped(text),
                );
            }
        }
    }
    end_path(&mut out, path);
    out.push_str("</g>\n</svg>\n");
    out
}

fn end_path(out: &mut String, path: Option<(Colour, String)>) {
    if let Some((colour, steps)) = path {
        let _ = writeln!(out, "<path fill=\"{}\" d=\"{steps}\"/>", hex(colour));
    }
}

fn hex([red, green, blue]: Colour) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_boxes_of_a_colour_are_one_path() {
        let red = [255, 0, 0];
        let cell = |x| Item::Box { x, y: 5, width: 7, height: 11, colour: red };
        let (face, colour, text) = (Face::Plain, [0; 3], "a<b & c".into());
        let picture = Picture {
            width: 100,
            height: 50,
            title: "<&>".into(),
            items: vec![cell(10), cell(18), Item::Text { x: 1, y: 2, face, colour, text }],
        };
        let text = svg(&picture);
        assert!(text.contains("<title>&lt;&amp;&gt;</title>"), "{text}");
        assert!(text.contains(">a&lt;b &amp; c</text>"), "{text}");
        assert!(text.contains("d=\"M10 5h7v11h-7zm8 0h7v11h-7z\""), "{text}");
        assert_eq!(text.matches("<path").count(), 1);
    }
}
