//! A client whose arguments are no values, and that takes replies for what they are not.

use vernal_rpc::{Code, Error};

use crate::Result;
use crate::check::tree;
use crate::types::*;

/// The address of a field, to write what is no value to it.
fn at<T>(field: &T) -> *mut u8 {
    std::ptr::from_ref(field).cast_mut().cast()
}

pub fn lie(address: &str) -> Result<()> {
    let conn = vernal_rpc::connect(address)?;
    let mut argument = conn.build::<Tree>(|heap| tree(heap, 1))?;
    let vector = |offset: usize| move |t: &Tree<'_>| at(&t.numbers).wrapping_add(offset);
    type Place = Box<dyn Fn(&Tree<'_>) -> *mut u8>;
    let lies: Vec<(&str, Place, &[u8])> = vec![
        ("an enum below", Box::new(|t| at(&t.kinds[0])), &[0]),
        ("an enum's gap", Box::new(|t| at(&t.kinds[2])), &[2]),
        ("an enum above", Box::new(|t| at(&t.boxed.kind)), &[201]),
        ("a wide enum's gap", Box::new(|t| at(&t.wide)), &[0; 8]),
        ("an enum in a row", Box::new(|t| at(&t.rows[1].kind)), &[4]),
        ("a bool", Box::new(|t| at(&t.is_root)), &[2]),
        ("a surrogate", Box::new(|t| at(&t.letter)), &[0, 0xd8, 0, 0]),
        (
            "no character",
            Box::new(|t| at(&t.letter)),
            &[0, 0, 0x11, 0],
        ),
        ("a null box", Box::new(|t| at(&t.boxed)), &[0; 8]),
        ("a wild box", Box::new(|t| at(&t.boxed)), &[8; 8]),
        ("a wild option", Box::new(|t| at(&t.maybe)), &[8; 8]),
        (
            "a box inside",
            Box::new(|t| at(&t.children[1].boxed)),
            &[0; 8],
        ),
        ("a box in a vector", Box::new(|t| at(&t.boxes[0])), &[0; 8]),
        ("a wild pointer", Box::new(|t| at(&t.back)), &[8; 8]),
        ("a null vector", Box::new(vector(0)), &[0; 8]),
        ("a length", Box::new(vector(8)), &[9; 8]),
        (
            "a capacity",
            Box::new(vector(16)),
            &[0, 0, 1, 0, 0, 0, 0, 0],
        ),
        ("a text", Box::new(|t| t.name.as_ptr().cast_mut()), &[0xff]),
        (
            "a text in a pair",
            Box::new(|t| t.pair[0].as_ptr().cast_mut()),
            &[0xff],
        ),
        (
            "a text in a row",
            Box::new(|t| t.rows[1].text.as_ptr().cast_mut()),
            &[0xff],
        ),
        ("a flag", Box::new(|t| at(&t.flags[1])), &[7]),
        (
            "a letter",
            Box::new(|t| at(&t.letters[3])),
            &[0, 0xdc, 0, 0],
        ),
        ("a boxed flag", Box::new(|t| at(&*t.boxed_flag)), &[7]),
        (
            "a boxed letter",
            Box::new(|t| at(&*t.boxed_letter)),
            &[0, 0, 0x11, 0],
        ),
    ];
    for (what, place, lie) in lies {
        let place = place(&argument);
        let mut truth = vec![0; lie.len()];
        // SAFETY: bytes of an object of this process' heap, where nothing refers to them meanwhile.
        unsafe {
            place.copy_to(truth.as_mut_ptr(), lie.len());
            place.copy_from(lie.as_ptr(), lie.len());
        }
        let refused = conn.call(ECHO, &argument);
        // SAFETY: as above.
        unsafe { place.copy_from(truth.as_ptr(), truth.len()) };
        match refused {
            Err(Error::Remote(f)) if f.code == Code::BadArgument => {}
            other => return Err(format!("{what}: {:?}", other.map(|_| "taken")).into()),
        }
    }
    let good = conn.call(ECHO, &argument)?;
    if good.name != argument.name {
        return Err("an honest argument after all that".into());
    }
    argument.change(|_, tree| {
        tree.children.clear();
        Ok(())
    })?;

    let bad_argument = |r: std::result::Result<(), Error>| match r {
        Err(Error::Remote(f)) if f.code == Code::BadArgument => Ok(()),
        other => Err(format!("{other:?}")),
    };
    let mut bytes: PlainBytes = [0; 16];
    bytes[8] = 1;
    conn.call(PLAIN_BYTES, &bytes)?;
    for (place, value) in [(8, 2), (8, 0), (9, 2), (5, 0xd8), (6, 0x11)] {
        let mut wrong = bytes;
        wrong[place] = value;
        bad_argument(conn.call(PLAIN_BYTES, &wrong).map(drop))?;
    }
    bad_argument(conn.call(PLAIN_SHORT, &7).map(drop))?;

    // Replies that are not what this side says.
    let unverified = |r: std::result::Result<(), Error>| match r {
        Err(Error::Unverified(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    if !*conn.call(FLAG, &1)? {
        return Err("1 is true".into());
    }
    unverified(conn.call(FLAG, &2).map(drop))?;
    unverified(conn.call(LEAF_AS_TREE, &()).map(drop))?;

    // An argument of another connection.
    let other = vernal_rpc::connect(address)?;
    match other.call(ECHO, &argument) {
        Err(Error::Invalid(_)) => {}
        other => return Err(format!("{:?}", other.map(|_| "taken")).into()),
    }
    println!("ok");
    Ok(())
}
