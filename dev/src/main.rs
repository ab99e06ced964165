//! The binary of the development stack.

use std::process::ExitCode;

fn main() -> ExitCode {
    purse_dev::main()
}
