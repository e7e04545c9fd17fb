"""The instruments of General MIDI (MMA, General MIDI System Level 1), by number and name."""

import difflib

from rlgen_cli.core.errors import UserError

FAMILY = 8  # instruments in each
# Sixteen families of eight, in the standard's order.
_NAMES = """
acoustic grand piano, bright acoustic piano, electric grand piano, honky-tonk piano, electric piano 1, electric piano 2,
harpsichord, clavinet,
celesta, glockenspiel, music box, vibraphone, marimba, xylophone, tubular bells, dulcimer,
drawbar organ, percussive organ, rock organ, church organ, reed organ, accordion, harmonica, tango accordion,
nylon guitar, steel guitar, jazz guitar, clean guitar, muted guitar, overdriven guitar, distortion guitar,
guitar harmonics,
acoustic bass, finger bass, pick bass, fretless bass, slap bass 1, slap bass 2, synth bass 1, synth bass 2,
violin, viola, cello, contrabass, tremolo strings, pizzicato strings, orchestral harp, timpani,
string ensemble 1, string ensemble 2, synth strings 1, synth strings 2, choir aahs, voice oohs, synth voice,
orchestra hit,
trumpet, trombone, tuba, muted trumpet, french horn, brass section, synth brass 1, synth brass 2,
soprano sax, alto sax, tenor sax, baritone sax, oboe, english horn, bassoon, clarinet,
piccolo, flute, recorder, pan flute, blown bottle, shakuhachi, whistle, ocarina,
square lead, sawtooth lead, calliope lead, chiff lead, charang lead, voice lead, fifths lead, bass and lead,
new age pad, warm pad, polysynth pad, choir pad, bowed pad, metallic pad, halo pad, sweep pad,
rain, soundtrack, crystal, atmosphere, brightness, goblins, echoes, sci-fi,
sitar, banjo, shamisen, koto, kalimba, bagpipe, fiddle, shanai,
tinkle bell, agogo, steel drums, woodblock, taiko drum, melodic tom, synth drum, reverse cymbal,
guitar fret noise, breath noise, seashore, bird tweet, telephone ring, helicopter, applause, gunshot
"""
INSTRUMENTS = tuple(" ".join(name.split()) for name in _NAMES.split(","))


def program_of(instrument: str | int) -> int:
    """The program, from 0, of an instrument by its number, from 1 as sequencers show it, or its name.

    Raises:
        UserError: for one that there is not.
    """
    if isinstance(instrument, int) and not isinstance(instrument, bool) and 1 <= instrument <= 128:
        return instrument - 1
    name = " ".join(str(instrument).lower().replace("_", " ").split())
    if name in INSTRUMENTS:
        return INSTRUMENTS.index(name)
    close = difflib.get_close_matches(name, INSTRUMENTS)
    meant = f"; did you mean {' or '.join(close)}?" if close else ", as in violin."
    raise UserError(f"instrument: must be from 1 to 128, or a name of General MIDI, got {instrument}{meant}")
