//! Changes of collections go both ways: they settle, and no echo of them comes back.
