//! End-to-end speed beside the ruler.

fn main() {}
