//! Whole lines that follow each other are one entry of a record, as far as their file goes.

use vernal_crash::explore::{FilePlace, recover_all};
use vernal_crash::session::{SLOT_LEN, Session, Setup};
use vernal_crash::world::Geometry;

const FILES: [FilePlace; 2] = [
    FilePlace { home: 0, meta: 1 },
    FilePlace { home: 2, meta: 3 },
];

#[test]
fn a_run_ends_where_its_file_ends() {
    for plainly in [false, true] {
        // The last line of one file's place, and the first of the next one's, which begins there.
        let setup = Setup {
            geometry: Geometry::DAX,
            lens: vec![SLOT_LEN, 128],
            log_len: 8192,
            grow_to: 0,
        };
        let mut s = Session::start(&setup).unwrap();
        assert_eq!(
            s.base(0) + SLOT_LEN,
            s.base(1),
            "the files lie side by side"
        );
        for word in 0..24 {
            s.store(s.base(1) - 64 + 8 * word, 0x1111_0000 + word);
        }
        if plainly {
            s.commit_plainly().unwrap();
        } else {
            s.commit().unwrap();
        }
        let newest = s.oracle().snapshots.last().unwrap().clone();
        let world = s.world().clone();
        // Nothing of it went home, so that everything hangs on the record.
        for (file, zeros) in FILES.iter().zip([SLOT_LEN as usize, 128]) {
            world.borrow_mut().write(file.home, 0, &vec![0; zeros]);
        }
        recover_all(&world, &FILES).unwrap();
        for (file, want) in FILES.iter().zip(&newest) {
            assert_eq!(
                world.borrow().content(file.home),
                want,
                "plainly: {plainly}"
            );
        }
    }
}
