//! An argument that is freed while its call is under way.
use vernal::{PString, Persist};
use vernal_rpc::Method;

#[derive(Persist)]
#[repr(C)]
struct Word<'p> {
    text: PString<'p>,
}

const COUNT: Method<Word, u64> = Method::new(1);

fn main() {
    let conn = vernal_rpc::connect("words").unwrap();
    let word = conn.build::<Word>(|heap| Ok(Word { text: heap.string("bolts")? })).unwrap();
    let call = conn.call_async(COUNT, &word);
    drop(word);
    let _ = call.wait();
}
