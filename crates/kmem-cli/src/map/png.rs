//! A picture as PNG.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster};

use super::picture::{Colour, Face, Item, PAPER, Picture};

/// The bytes of the file.
///
/// # Errors
///
/// The picture cannot be encoded.
pub fn png(picture: &Picture) -> Result<Vec<u8>, String> {
    let mut canvas = Canvas::new(picture.width, picture.height);
    for item in &picture.items {
        match item {
            Item::Box { x, y, width, height, colour } => {
                for y in *y..y.saturating_add(*height) {
                    for x in *x..x.saturating_add(*width) {
                        canvas.blend(x, y, *colour, u8::MAX);
                    }
                }
            }
            Item::Text { x, y, face, colour, text } => {
                let mut x = *x;
                for sign in text.chars() {
                    canvas.glyph(x, *y, *face, *colour, sign);
                    x += face.advance();
                }
            }
        }
    }
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, picture.width, picture.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    let failed = |error: png::EncodingError| error.to_string();
    encoder
        .add_text_chunk("Title".into(), picture.title.clone())
        .and_then(|()| encoder.write_header())
        .and_then(|mut writer| {
            writer.write_image_data(&canvas.pixels)?;
            writer.finish()
        })
        .map_err(failed)?;
    Ok(file)
}

struct Canvas {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Canvas {
    fn new(width: u32, height: u32) -> Self {
        let pixels = PAPER.repeat(width as usize * height as usize);
        Canvas { width, height, pixels }
    }

    /// Puts a colour over what is there, wholly at 255.
    fn blend(&mut self, x: u32, y: u32, colour: Colour, cover: u8) {
        if x >= self.width || y >= self.height {
            return;
        }
        let at = (y as usize * self.width as usize + x as usize) * 3;
        for (below, above) in self.pixels[at..at + 3].iter_mut().zip(colour) {
            let (cover, old) = (u32::from(cover), u32::from(*below));
            *below = ((u32::from(above) * cover + old * (255 - cover)) / 255) as u8;
        }
    }

    fn glyph(&mut self, x: u32, y: u32, face: Face, colour: Colour, sign: char) {
        let (weight, height) = match face {
            Face::Title => (FontWeight::Bold, RasterHeight::Size24),
            Face::Heading => (FontWeight::Bold, RasterHeight::Size16),
            Face::Plain => (FontWeight::Regular, RasterHeight::Size16),
        };
        // The font has ASCII; names of machines may have more.
        let glyph = get_raster(sign, weight, height).or_else(|| get_raster('?', weight, height));
        for (down, row) in (0..).zip(glyph.iter().flat_map(|glyph| glyph.rows())) {
            for (right, cover) in (0..).zip(row) {
                self.blend(x + right, y + down, colour, *cover);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use noto_sans_mono_bitmap::get_raster_width;

    use super::*;

    #[test]
    fn a_file_has_the_pixels_that_were_drawn() {
        let (face, colour) = (Face::Plain, [0, 0, 0]);
        let picture = Picture {
            width: 40,
            height: 20,
            title: "Größe".into(),
            items: vec![
                Item::Box { x: 30, y: 2, width: 20, height: 3, colour: [1, 2, 3] },
                Item::Text { x: 0, y: 0, face, colour, text: "H\u{444}".into() },
            ],
        };
        let file = png(&picture).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; 40 * 20 * 3];
        reader.next_frame(&mut pixels).unwrap();
        let pixel = |x: usize, y: usize| &pixels[(y * 40 + x) * 3..][..3];
        assert_eq!((pixel(30, 2), pixel(39, 4)), (&[1, 2, 3][..], &[1, 2, 3][..]));
        assert_eq!((pixel(29, 2), pixel(30, 5)), (&PAPER[..], &PAPER[..]));
        let is_inked = |from: usize| (0..7).any(|x| (0..16).any(|y| pixel(from + x, y)[0] < 64));
        assert!(is_inked(0) && is_inked(7) && !is_inked(14));
    }

    #[test]
    fn characters_are_as_wide_as_the_picture_has_them() {
        for (face, weight, height) in [
            (Face::Title, FontWeight::Bold, RasterHeight::Size24),
            (Face::Heading, FontWeight::Bold, RasterHeight::Size16),
            (Face::Plain, FontWeight::Regular, RasterHeight::Size16),
        ] {
            assert_eq!(face.advance() as usize, get_raster_width(weight, height), "{face:?}");
        }
    }
}
