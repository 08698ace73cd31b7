//! Event files of TensorBoard: scalars by step, in the form that its `EventAccumulator` reads.
//!
//! A file is a row of TFRecords (tensorflow/core/lib/io/record_writer.cc): the length of the data, its checksum, the
//! data, its checksum. The data of each is an `Event` in the wire format of Protocol Buffers
//! (tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto). Scalars need few of its fields, which
//! are written by hand: the crate `tensorboard-rs` is dormant, and takes times from the clock.

/// Numbers of one step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    /// Seconds since 1970.
    pub(super) wall_time: f64,
    /// The step that they belong to.
    pub(super) step: u32,
    /// Tags and numbers. A file has numbers of 32 bits.
    pub(super) scalars: Vec<(&'static str, f64)>,
}

/// The version that the first event of a file tells.
const VERSION: &str = "brain.Event:2";

/// Fields of the messages, with their types of wire format: 0 is a number of variable length, 1 has 64 bits, 2 has a
/// length, 5 has 32 bits.
mod field {
    pub(super) const EVENT_WALL_TIME: u8 = (1 << 3) | 1;
    pub(super) const EVENT_STEP: u8 = 2 << 3;
    pub(super) const EVENT_FILE_VERSION: u8 = (3 << 3) | 2;
    pub(super) const EVENT_SUMMARY: u8 = (5 << 3) | 2;
    pub(super) const SUMMARY_VALUE: u8 = (1 << 3) | 2;
    pub(super) const VALUE_TAG: u8 = (1 << 3) | 2;
    pub(super) const VALUE_SIMPLE: u8 = (2 << 3) | 5;
}

/// Returns an event file that begins at `wall_time`.
pub(super) fn event_file(wall_time: f64, events: &[Event]) -> Vec<u8> {
    let mut head = wall_time_field(wall_time);
    put_bytes(&mut head, field::EVENT_FILE_VERSION, VERSION.as_bytes());
    let mut file = record(&head);
    events.iter().for_each(|event| file.extend(record(&message(event))));
    file
}

fn message(event: &Event) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, number) in &event.scalars {
        let mut value = Vec::new();
        put_bytes(&mut value, field::VALUE_TAG, tag.as_bytes());
        value.push(field::VALUE_SIMPLE);
        value.extend((*number as f32).to_le_bytes());
        put_bytes(&mut summary, field::SUMMARY_VALUE, &value);
    }
    let mut message = wall_time_field(event.wall_time);
    message.push(field::EVENT_STEP);
    put_varint(&mut message, u64::from(event.step));
    put_bytes(&mut message, field::EVENT_SUMMARY, &summary);
    message
}

fn wall_time_field(wall_time: f64) -> Vec<u8> {
    [&[field::EVENT_WALL_TIME][..], &wall_time.to_le_bytes()].concat()
}

fn put_bytes(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    message.push(field);
    put_varint(message, bytes.len() as u64);
    message.extend(bytes);
}

/// Seven bits a byte, the lowest first; all but the last have their highest bit set.
fn put_varint(message: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        message.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length).to_le_bytes(), data, &checksum(data).to_le_bytes()].concat()
}

/// CRC-32C, masked because the checksum of data that contains checksums is weak (tensorflow/core/lib/hash/crc32c.h).
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first record that TensorFlow itself writes, at the time 1.5.
    #[test]
    fn a_file_begins_as_those_of_tensorflow() {
        let file = event_file(1.5, &[]);
        assert_eq!(file[..8], 24_u64.to_le_bytes());
        assert_eq!(file[8..12], [0xa3, 0x7f, 0x4b, 0x22], "the checksum of 24");
        assert_eq!(file[12..21], [0x09, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f]);
        assert_eq!(&file[21..36], b"\x1a\x0dbrain.Event:2");
        assert_eq!(file.len(), 8 + 4 + 24 + 4);
    }

    #[test]
    fn an_event_has_its_step_and_its_scalars() {
        let event = Event { wall_time: 0.0, step: 300, scalars: vec![("loss", 0.5)] };
        let expected =
            [&b"\x09"[..], &[0; 8], b"\x10\xac\x02", b"\x2a\x0d", b"\x0a\x0b\x0a\x04loss\x15", &0.5_f32.to_le_bytes()];
        assert_eq!(message(&event), expected.concat());
    }
}
