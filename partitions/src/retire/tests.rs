//! What happens to a leaf next, case by case.

use super::*;
