//! Bytes as text that a person can read out: Crockford's base 32. No `I`, `L`, `O` or `U`; the
//! first three are read as the digits they look like, and case does not matter.

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const DIGIT_BITS: u32 = 5;

/// Writes `bytes`, padded with zero bits to a whole digit.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        count += 8;
        while count >= DIGIT_BITS {
            count -= DIGIT_BITS;
            text.push(digit(bits >> count));
        }
    }
    if count > 0 {
        text.push(digit(bits << (DIGIT_BITS - count)));
    }
    text
}

/// Reads what [`encode`] wrote; `None` for any other text, also one with a digit too many or with
/// padding that is not zero.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for character in text.chars() {
        bits = bits << DIGIT_BITS | value(character)?;
        count += DIGIT_BITS;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    let padding = bits & ((1 << count) - 1);
    (count < DIGIT_BITS && padding == 0).then_some(bytes)
}

fn digit(bits: u32) -> char {
    char::from(DIGITS[(bits & 31) as usize])
}

fn value(character: char) -> Option<u32> {
    let plain = match character.to_ascii_uppercase() {
        'I' | 'L' => '1',
        'O' => '0',
        other => other,
    };
    let plain = u8::try_from(plain).ok()?;
    DIGITS
        .iter()
        .position(|digit| *digit == plain)
        .map(|position| position as u32)
}
