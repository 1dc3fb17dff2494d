//! The page of `vernal inspect` in headless Chromium: it renders, can be searched and expanded, and stays usable with a
//! million objects. Without Chromium every test is skipped, and counted so.
#![forbid(unsafe_code)]

mod browser;
mod pool;
mod tests;

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Tests the page of `vernal inspect` in headless Chromium")]
struct Options {
    /// Objects of the large pool
    #[arg(long, default_value_t = 1_000_000)]
    objects: u64,
    /// Keep the pages and pictures of them in this folder
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let Some(program) = browser::installed() else {
        println!("skipped: Chromium is not installed (Debian: apt-get install chromium)");
        println!("0 passed, 0 failed, {} skipped", tests::TESTS.len());
        return ExitCode::SUCCESS;
    };
    let (mut passed, mut failed) = (0, 0);
    match tests::prepare(&program, options.objects, options.keep) {
        Ok(mut bench) => {
            for (name, test) in tests::TESTS {
                let outcome = test(&mut bench).and_then(|()| bench.complaints());
                match outcome {
                    Ok(()) => {
                        passed += 1;
                        println!("ok    {name}");
                    }
                    Err(why) => {
                        failed += 1;
                        println!("FAIL  {name}: {why}");
                    }
                }
            }
        }
        Err(why) => {
            failed += 1;
            println!("FAIL  starting: {why}");
        }
    }
    println!("{passed} passed, {failed} failed, 0 skipped");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
