//! How bytes travel: ranges, budget, retry, progress. One engine for both goods.
