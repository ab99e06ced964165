//! Limits how often a library repeats itself. During an outage a library reports every attempt, where our own code
//! logs once per minute.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use slog::{BorrowedKV, Drain, Level, OwnedKVList, Record, RecordStatic};

use crate::infra::telemetry::level_filter::{is_ours, library, target};

/// Interval at which a library may repeat itself.
const REMIND_EVERY: Duration = Duration::from_mins(1);
/// A message that was last seen longer ago is a new one.
const FORGET_AFTER: Duration = Duration::from_mins(10);
/// New messages of a library in [`REMIND_EVERY`]. Whatever varies in a message must not defeat the limit.
const NEW_MAX: u32 = 8;
/// Remembered messages, and libraries.
const REMEMBERED_MAX: usize = 256;

/// How many records were suppressed.
#[derive(Clone, Default)]
pub(super) struct SuppressedCount(Arc<AtomicU64>);

impl SuppressedCount {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Passes on all records but warnings and errors that a library repeats; of these, one per library, level and minute. What
/// is passed on after others were suppressed carries their number as `suppressed`.
pub(super) struct RepeatFilter<D> {
    inner: D,
    seen: Mutex<Seen>,
    suppressed: SuppressedCount,
}

impl<D> RepeatFilter<D> {
    pub(super) fn new(inner: D) -> Self {
        Self { inner, seen: Mutex::default(), suppressed: SuppressedCount::default() }
    }

    pub(super) fn suppressed(&self) -> SuppressedCount {
        self.suppressed.clone()
    }
}

impl<D: Drain> Drain for RepeatFilter<D> {
    type Ok = Option<D::Ok>;
    type Err = D::Err;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<Self::Ok, Self::Err> {
        let target = target(record);
        // Below a warning everything is passed on: the operator has asked for the details.
        if is_ours(target) || !record.level().is_at_least(Level::Warning) {
            return self.inner.log(record, values).map(Some);
        }
        // Formatted before the lock: it may run any code.
        let message = message_id(target, record);
        let source = (library(target).to_owned(), record.level().as_usize());
        let verdict = self.seen.lock().unwrap_or_else(PoisonError::into_inner).judge(source, message, Instant::now());
        match verdict {
            Verdict::Suppress => {
                self.suppressed.0.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            }
            Verdict::Pass { suppressed: 0 } => self.inner.log(record, values).map(Some),
            Verdict::Pass { suppressed } => {
                let statics = RecordStatic { location: record.location(), tag: record.tag(), level: record.level() };
                let pairs = (record.kv(), slog::kv!("suppressed" => suppressed));
                self.inner.log(&Record::new(&statics, record.msg(), BorrowedKV(&pairs)), values).map(Some)
            }
        }
    }
}

/// Identifies what a record says, without numbers and ids: a word with a digit counts as any other such word.
fn message_id(target: &str, record: &Record<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    target.hash(&mut hasher);
    for word in record.msg().to_string().split(|c: char| !c.is_alphanumeric()) {
        if word.contains(|c: char| c.is_ascii_digit()) { "#".hash(&mut hasher) } else { word.hash(&mut hasher) }
    }
    hasher.finish()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass {
        /// Records of the same library and level since the last one that was passed on.
        suppressed: u64,
    },
    Suppress,
}

#[derive(Default)]
struct Seen {
    /// When each message was last seen.
    messages: HashMap<u64, Instant>,
    /// By name and level.
    libraries: HashMap<(String, usize), Window>,
}

#[derive(Default)]
struct Window {
    passed_at: Option<Instant>,
    counting_since: Option<Instant>,
    new: u32,
    suppressed: u64,
}

impl Seen {
    fn judge(&mut self, source: (String, usize), message: u64, now: Instant) -> Verdict {
        let is_over = |since: Option<Instant>| since.is_none_or(|since| now.duration_since(since) >= REMIND_EVERY);
        if self.messages.len() >= REMEMBERED_MAX {
            self.messages.retain(|_, seen| now.duration_since(*seen) < FORGET_AFTER);
        }
        // What cannot be remembered counts as a repetition.
        let is_new = self.messages.get(&message).is_none_or(|seen| now.duration_since(*seen) >= FORGET_AFTER)
            && self.messages.len() < REMEMBERED_MAX;
        if is_new || self.messages.contains_key(&message) {
            self.messages.insert(message, now);
        }
        // The modules of a binary are a closed list, but a target may be any text.
        if self.libraries.len() >= REMEMBERED_MAX && !self.libraries.contains_key(&source) {
            self.libraries.clear();
        }
        let window = self.libraries.entry(source).or_default();
        if is_over(window.counting_since) {
            (window.counting_since, window.new) = (Some(now), 0);
        }
        let is_new = is_new && window.new < NEW_MAX;
        if is_new || is_over(window.passed_at) {
            window.new = window.new.saturating_add(u32::from(is_new));
            window.passed_at = Some(now);
            Verdict::Pass { suppressed: std::mem::take(&mut window.suppressed) }
        } else {
            window.suppressed = window.suppressed.saturating_add(1);
            Verdict::Suppress
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use slog::o;

    const PASS: Verdict = Verdict::Pass { suppressed: 0 };

    fn broken() -> (String, usize) {
        ("lapin".to_owned(), Level::Error.as_usize())
    }

    #[test]
    fn what_a_library_repeats_is_passed_on_once_per_minute_with_the_number_of_suppressed_records() {
        let (mut seen, began) = (Seen::default(), Instant::now());
        let mut at = |seconds: u64, message| seen.judge(broken(), message, began + Duration::from_secs(seconds));
        assert_eq!(at(0, 1), PASS);
        assert_eq!(at(1, 1), Verdict::Suppress);
        // Another message is not a repetition.
        assert_eq!(at(2, 2), Verdict::Pass { suppressed: 1 });
        for second in 3..62 {
            assert_eq!(at(second, 1 + second % 2), Verdict::Suppress, "{second}");
        }
        assert_eq!(at(62, 2), Verdict::Pass { suppressed: 59 });
        assert_eq!(at(63, 1), Verdict::Suppress);
        // Forgotten, and therefore new again.
        assert_eq!(at(700, 2), Verdict::Pass { suppressed: 1 });
        assert_eq!(at(701, 1), PASS);
    }

    #[test]
    fn a_library_or_level_does_not_silence_another() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        let warning = ("lapin".to_owned(), Level::Warning.as_usize());
        let rustls = ("rustls".to_owned(), Level::Error.as_usize());
        for (message, source) in [broken(), warning, rustls].into_iter().enumerate() {
            assert_eq!(seen.judge(source, u64::try_from(message).expect("small"), now), PASS);
        }
    }

    #[test]
    fn endless_variation_is_limited_in_lines_and_in_memory() {
        let (mut seen, began) = (Seen::default(), Instant::now());
        let mut passed = 0;
        for message in 0..100_000_u64 {
            let now = began + Duration::from_millis(message);
            passed += u32::from(seen.judge(broken(), message, now) != Verdict::Suppress);
            assert!(seen.messages.len() <= REMEMBERED_MAX);
        }
        // 100 seconds: at most one reminder per minute beside the new messages.
        assert!(passed <= 2 * (NEW_MAX + 1), "{passed}");
        for n in 0..10_000_u64 {
            seen.judge((format!("library {n}"), 0), n, began);
            assert!(seen.libraries.len() <= REMEMBERED_MAX);
        }
    }

    /// Collects level, message and the pair `suppressed` of each record.
    #[derive(Clone, Default)]
    struct Collector(Arc<Mutex<Vec<String>>>);

    struct Pairs(String);

    impl slog::Serializer for Pairs {
        fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
            write!(self.0, " {key}={value}")?;
            Ok(())
        }
    }

    impl Drain for Collector {
        type Ok = ();
        type Err = slog::Never;

        fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), slog::Never> {
            use slog::KV as _;
            let mut pairs = Pairs(format!("{} {}", record.level(), record.msg()));
            record.kv().serialize(record, &mut pairs).expect("serialized");
            self.0.lock().expect("lines").push(pairs.0);
            Ok(())
        }
    }

    #[test]
    fn numbers_and_ids_do_not_make_a_message_new_and_our_own_and_detailed_records_are_passed_on() {
        let collector = Collector::default();
        let filter = RepeatFilter::new(collector.clone());
        let values: OwnedKVList = o!().into();
        let log = |level: Level, module: &'static str, message: &str| {
            let location = slog::RecordLocation { file: "", line: 0, column: 0, function: "", module };
            let statics = RecordStatic { location: &location, tag: "", level };
            let logged = filter.log(&Record::new(&statics, &format_args!("{message}"), slog::b!("k" => 1)), &values);
            assert!(logged.is_ok());
        };
        log(Level::Error, "lapin::channel", "channel 7 of 127.0.0.1:5672 failed");
        log(Level::Error, "lapin::channel", "channel 8 of 127.0.0.1:40122 failed");
        log(Level::Error, "lapin::channel", "channel 9 is blocked");
        for _ in 0..2 {
            log(Level::Error, "purse::roles", "ours");
            log(Level::Debug, "lapin::channel", "detail");
        }
        let lines = collector.0.lock().expect("lines").clone();
        let expected = [
            "ERRO channel 7 of 127.0.0.1:5672 failed k=1",
            "ERRO channel 9 is blocked k=1 suppressed=1",
            "ERRO ours k=1",
            "DEBG detail k=1",
            "ERRO ours k=1",
            "DEBG detail k=1",
        ];
        assert_eq!(lines, expected);
        assert_eq!(filter.suppressed().get(), 1);
    }
}
