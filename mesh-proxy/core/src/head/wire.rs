//! The codecs' side of a head: records that point into received bytes, and field lines written as HTTP/1.1.

use super::known::KnownName;
use super::name::NameRef;
use super::{Field, FieldError, FieldState, Head, NameCase, Span, offset, same_name, syntax};

impl Head {
    /// Appends all field lines for which `skip` is false, as HTTP/1.1 writes them. Neighbours that nobody touched are
    /// copied as one run.
    pub(crate) fn write_lines(&self, out: &mut Vec<u8>, mut skip: impl FnMut(Option<KnownName>) -> bool) {
        let mut run = 0..0;
        for field in &self.fields {
            match field.state {
                FieldState::Removed => {}
                _ if skip(field.known) => {}
                FieldState::Line => {
                    let (start, end) = (field.name_start as usize, field.value().range().end + 2);
                    if run.end == start {
                        run.end = end;
                    } else {
                        out.extend_from_slice(self.arena.get(run).unwrap_or_default());
                        run = start..end;
                    }
                }
                FieldState::Parts => {
                    out.extend_from_slice(self.arena.get(std::mem::take(&mut run)).unwrap_or_default());
                    for part in [self.slice(field.name()), b": ", self.slice(field.value()), b"\r\n"] {
                        out.extend_from_slice(part);
                    }
                }
            }
        }
        out.extend_from_slice(self.arena.get(run).unwrap_or_default());
    }

    /// Takes received bytes as the beginning of the arena. The head must have just been reset.
    ///
    /// # Errors
    /// [`FieldError::TooLarge`] beyond the arena.
    pub(crate) fn load(&mut self, raw: &[u8]) -> Result<(), FieldError> {
        self.check_room(raw.len())?;
        self.arena.extend_from_slice(raw);
        Ok(())
    }

    /// Records a field of the loaded bytes by offset. Name and value were checked by the tokenizer; a `Host` is not checked
    /// here, see [`Head::settle_host`].
    pub(crate) fn record(
        &mut self,
        case: NameCase,
        name_start: usize,
        name: &[u8],
        value_start: usize,
        value_len: usize,
    ) -> Result<Option<KnownName>, FieldError> {
        let name_len = u16::try_from(name.len()).map_err(|_| FieldError::TooLarge)?;
        let name_end = name_start.saturating_add(name.len());
        let value_end = value_start.saturating_add(value_len);
        let line = self.arena.get(name_end..value_start) == Some(b": ")
            && self.arena.get(value_end..value_end.saturating_add(2)) == Some(b"\r\n");
        if case == NameCase::Lower {
            self.arena.get_mut(name_start..name_end).unwrap_or_default().make_ascii_lowercase();
        }
        let known = KnownName::of(name);
        self.present |= known.map_or(0, KnownName::bit);
        self.fields.push(Field {
            name_start: offset(name_start)?,
            value_start: offset(value_start)?,
            value_len: offset(value_len)?,
            name_len,
            known,
            state: if line { FieldState::Line } else { FieldState::Parts },
        });
        Ok(known)
    }

    /// Checks the recorded `Host` and makes its lower-case copy.
    pub(crate) fn settle_host(&mut self) -> Result<(), FieldError> {
        let host = self.position(NameRef::Known(KnownName::Host)).and_then(|place| self.fields.get(place).copied());
        match host {
            Some(field) if syntax::is_authority(self.slice(field.value())) => self.note_host(field),
            Some(_) => Err(FieldError::Value),
            None => Ok(()),
        }
    }

    /// Points the target at loaded bytes, already checked.
    pub(crate) fn place_target_at(&mut self, start: usize, len: usize) -> Result<(), FieldError> {
        let span = Span { start: offset(start)?, len: offset(len)? };
        self.place_target(span);
        Ok(())
    }

    /// Points the reason phrase at loaded bytes, already checked.
    pub(crate) fn place_reason_at(&mut self, start: usize, len: usize) -> Result<(), FieldError> {
        self.reason = Span { start: offset(start)?, len: offset(len)? };
        Ok(())
    }

    /// Points the status at loaded bytes, already checked.
    pub(crate) fn place_status_at(&mut self, status: u16, start: usize) -> Result<(), FieldError> {
        self.status_text = Span { start: offset(start)?, len: 3 };
        self.status = status;
        Ok(())
    }

    /// Removes the fields that `connection` names (RFC 9110 section 7.6.1). Names that the product knows are end-to-end and
    /// stay: nominating `authorization` or `x-forwarded-for` is an attempt to hide them from the next hop (CVE-2022-1388).
    pub(crate) fn remove_nominated(&mut self) {
        let Self { arena, fields, .. } = self;
        for place in 0..fields.len() {
            let Some(field) = fields.get(place) else { return };
            if field.known != Some(KnownName::Connection) || field.state == FieldState::Removed {
                continue;
            }
            let options = arena.get(field.value().range()).unwrap_or_default();
            for option in options.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if let NameRef::Other(name) = NameRef::from(option) {
                    for other in fields.iter_mut() {
                        if same_name(arena, other, NameRef::Other(name)) {
                            other.state = FieldState::Removed;
                        }
                    }
                }
            }
        }
    }
}
