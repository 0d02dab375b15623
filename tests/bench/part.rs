//! What is asked of the program: one part, how often, and how much of it.

use crate::cases::Group;

/// Medians are of so many rounds unless told.
const ROUNDS: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Drain,
    Memory,
    Latency,
    Start,
    Copy,
    Log,
    Ratios(Group),
}

pub struct Arguments {
    pub part: Part,
    pub rounds: usize,
    /// Of operations, or of what else the part counts.
    pub number: Option<usize>,
}

impl Arguments {
    /// None where something is not understood.
    pub fn of(given: impl Iterator<Item = String>) -> Option<Self> {
        let (mut part, mut rounds, mut number) = (None, ROUNDS, None);
        // The first one is of cargo bench, wherever it stands.
        let mut given = given.filter(|argument| argument != "--bench");
        while let Some(argument) = given.next() {
            match argument.as_str() {
                "--rounds" => rounds = positive(given.next()?)?,
                "--number" => number = Some(positive(given.next()?)?),
                name if part.is_none() => part = Some(Part::parse(name)?),
                _ => return None,
            }
        }
        Some(Self {
            part: part?,
            rounds,
            number,
        })
    }
}

fn positive(text: String) -> Option<usize> {
    text.parse().ok().filter(|number| *number > 0)
}

impl Part {
    const ALONE: [(&'static str, Part); 6] = [
        ("drain", Part::Drain),
        ("memory", Part::Memory),
        ("latency", Part::Latency),
        ("start", Part::Start),
        ("copy", Part::Copy),
        ("log", Part::Log),
    ];

    fn parse(name: &str) -> Option<Self> {
        let alone = Self::ALONE.iter().find(|(other, _)| *other == name);
        let alone = alone.map(|(_, part)| *part);
        alone.or_else(|| Group::parse(name).map(Part::Ratios))
    }
}

pub fn usage() -> String {
    let alone = Part::ALONE.map(|(name, _)| name).join(", ");
    let groups = Group::NAMES.join(", ");
    format!("usage: clusters PART [--rounds N] [--number N]\nparts: {alone}, {groups}")
}
