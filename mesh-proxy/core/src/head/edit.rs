//! Edits of fields: bytes go to the end of the arena, records are marked.

use super::known::KnownName;
use super::name::NameRef;
use super::{Field, FieldError, FieldRef, FieldState, Head, Span, offset, same_name, syntax};

impl Head {
    /// Makes `value` the only value of `name`: in the place of the first field of that name, or at the end.
    ///
    /// # Errors
    /// [`FieldError`] when name or value is not valid here; the head is then unchanged.
    pub fn set<'a>(&mut self, name: impl Into<NameRef<'a>>, value: &[u8]) -> Result<(), FieldError> {
        let name = name.into();
        if let NameRef::Known(known) = name
            && known.is_pseudo()
        {
            return self.set_pseudo(known, value);
        }
        let Some(place) = self.position(name) else { return self.append(name, value) };
        let new = self.push_line(name, value)?;
        let mut others = self.fields.iter_mut().skip(place);
        if let Some(field) = others.next() {
            *field = new;
        }
        for field in others {
            if field.state != FieldState::Removed && same_name(&self.arena, field, name) {
                field.state = FieldState::Removed;
            }
        }
        self.note_host(new)
    }

    /// Adds a field line at the end.
    ///
    /// # Errors
    /// [`FieldError`] when name or value is not valid here, among them a second `host`; the head is then unchanged.
    pub fn append<'a>(&mut self, name: impl Into<NameRef<'a>>, value: &[u8]) -> Result<(), FieldError> {
        let name = name.into();
        match name {
            NameRef::Known(known) if known.is_pseudo() => return self.set_pseudo(known, value),
            NameRef::Known(KnownName::Host) if self.present & KnownName::Host.bit() != 0 => {
                return Err(FieldError::Value);
            }
            _ => {}
        }
        let field = self.push_line(name, value)?;
        if let Some(known) = field.known {
            self.present |= known.bit();
        }
        self.fields.push(field);
        self.note_host(field)
    }

    /// Adds `value` to the comma-separated list that the first field of that name holds, or adds a field.
    ///
    /// # Errors
    /// As [`Head::append`].
    pub fn append_to_list<'a>(&mut self, name: impl Into<NameRef<'a>>, value: &[u8]) -> Result<(), FieldError> {
        let name = name.into();
        let place = self.position(name).filter(|_| !matches!(name, NameRef::Known(KnownName::Host)));
        let Some(old) = place.and_then(|place| self.fields.get(place).copied()) else {
            return self.append(name, value);
        };
        if !syntax::is_field_value(value) {
            return Err(FieldError::Value);
        }
        if old.value_len == 0 || value.is_empty() {
            return if value.is_empty() { Ok(()) } else { self.replace_at(place, name, value) };
        }
        let room = old.value_len as usize + value.len() + usize::from(old.name_len) + 8;
        self.check_room(room)?;
        let start = self.here()?;
        let name_start = start.start;
        self.arena.extend_from_within(old.name().range());
        self.arena.extend_from_slice(b": ");
        let value_start = self.here()?.start;
        self.arena.extend_from_within(old.value().range());
        self.arena.extend_from_slice(b", ");
        self.arena.extend_from_slice(value);
        let value_len = self.here()?.start - value_start;
        self.arena.extend_from_slice(b"\r\n");
        if let Some(field) = place.and_then(|place| self.fields.get_mut(place)) {
            *field = Field { name_start, value_start, value_len, state: FieldState::Line, ..old };
        }
        Ok(())
    }

    /// Removes all fields of that name; pseudo-header fields stay. Returns whether there was one.
    pub fn remove<'a>(&mut self, name: impl Into<NameRef<'a>>) -> bool {
        let name = name.into();
        if let NameRef::Known(known) = name {
            if self.present & known.bit() == 0 {
                return false;
            }
            self.present &= !known.bit();
            if known == KnownName::Host {
                self.host_lower = Span::default();
            }
        }
        let mut found = false;
        for field in &mut self.fields {
            if field.state != FieldState::Removed && same_name(&self.arena, field, name) {
                field.state = FieldState::Removed;
                found = true;
            }
        }
        found
    }

    /// Keeps only the fields that `keep` wants, in order.
    pub fn retain(&mut self, mut keep: impl FnMut(FieldRef<'_>) -> bool) {
        let mut present = 0;
        let mut fields = std::mem::take(&mut self.fields);
        for field in fields.iter_mut().filter(|field| field.state != FieldState::Removed) {
            if keep(self.field_ref(field)) {
                present |= field.known.map_or(0, KnownName::bit);
            } else {
                field.state = FieldState::Removed;
            }
        }
        self.fields = fields;
        self.present = present;
        if present & KnownName::Host.bit() == 0 {
            self.host_lower = Span::default();
        }
    }

    fn replace_at(&mut self, place: Option<usize>, name: NameRef<'_>, value: &[u8]) -> Result<(), FieldError> {
        let new = self.push_line(name, value)?;
        if let Some(field) = place.and_then(|place| self.fields.get_mut(place)) {
            *field = new;
        }
        Ok(())
    }

    /// Checks name and value and writes the whole line, so that it can later be copied as one piece.
    fn push_line(&mut self, name: NameRef<'_>, value: &[u8]) -> Result<Field, FieldError> {
        let known = match name {
            NameRef::Known(known) => Some(known),
            NameRef::Other(text) if syntax::is_token(text) => None,
            NameRef::Other(_) => return Err(FieldError::Name),
        };
        let valid =
            if known == Some(KnownName::Host) { syntax::is_authority(value) } else { syntax::is_field_value(value) };
        if !valid {
            return Err(FieldError::Value);
        }
        let text = name.as_bytes();
        let name_len = u16::try_from(text.len()).map_err(|_| FieldError::TooLarge)?;
        self.check_room(text.len() + value.len() + 4)?;
        let name_start = self.here()?.start;
        self.arena.extend_from_slice(text);
        self.arena.extend_from_slice(b": ");
        let value_start = self.here()?.start;
        self.arena.extend_from_slice(value);
        self.arena.extend_from_slice(b"\r\n");
        Ok(Field { name_start, value_start, value_len: offset(value.len())?, name_len, known, state: FieldState::Line })
    }

    /// Renews the lower-case authority when `field` is the host.
    pub(super) fn note_host(&mut self, field: Field) -> Result<(), FieldError> {
        if field.known != Some(KnownName::Host) {
            return Ok(());
        }
        let span = field.value();
        if self.slice(span).iter().any(u8::is_ascii_uppercase) {
            self.check_room(span.len as usize)?;
            let copy = Span { len: span.len, ..self.here()? };
            self.arena.extend_from_within(span.range());
            self.arena.get_mut(copy.range()).unwrap_or_default().make_ascii_lowercase();
            self.host_lower = copy;
        } else {
            self.host_lower = span;
        }
        Ok(())
    }
}
