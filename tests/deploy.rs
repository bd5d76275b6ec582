//! What is shipped in `deploy/` is right.

use stoker::list::{AllowList, parse};

#[test]
fn the_example_list_has_nothing_wrong_with_it() {
    let text = include_bytes!("../deploy/examples/list/list.yaml");
    let schemes = AllowList::DEFAULT_SCHEMES.map(str::to_owned);
    let allow = AllowList::new(&schemes, &[], None).unwrap();
    let list = parse(text, &allow);
    assert!(list.all_problems().is_empty(), "{:?}", list.all_problems());
    assert!(list.head.is_some() && list.entries.len() == 4);
    assert!(list.entries.iter().all(|entry| entry.entry.is_some()));
}
