//! Buckets whose readers pay.

use crate::node::{BUCKET, SOON, agent, assert_current, bytes, list, said};
use crate::parts::{FaultProxy, Gpus, S3, Seen};

const PAYS: Option<&str> = Some("requester");

fn payers(proxy: &FaultProxy, key: &str) -> Vec<(String, Option<String>)> {
    let payer = |seen: &Seen| seen.headers.get("x-amz-request-payer").map(str::to_owned);
    let of = |seen: Seen| (seen.path.contains(key)).then(|| (seen.method.clone(), payer(&seen)));
    proxy.seen().into_iter().filter_map(of).collect()
}

#[tokio::test]
async fn who_pays_says_so_with_every_request_and_nobody_else_does() {
    let gpus = Gpus::healthy(1);
    let s3 = S3::start().await;
    s3.make_bucket(BUCKET).await;
    let objects = FaultProxy::start(s3.endpoint().trim_start_matches("http://"));
    // Of equal bytes only one entry would fetch any.
    let [weights, free, odd] = [1, 2, 3].map(|seed| bytes(seed, 3 << 20));
    for (key, bytes) in [("paid/w.bin", &weights), ("free/w.bin", &free), ("odd/w.bin", &odd)] {
        s3.put(BUCKET, key, &**bytes).await;
    }
    let agent = agent(&gpus);
    for (name, payer) in [("paid", Some("requester")), ("free", None), ("odd", Some("owner"))] {
        let values = s3.env().into_iter().filter(|(key, _)| *key != "AWS_ENDPOINT_URL");
        for (key, value) in values.chain([("AWS_ENDPOINT_URL", objects.url())]) {
            agent.scratch().file(format!("secrets/{name}/{key}"), value);
        }
        if let Some(payer) = payer {
            agent.scratch().file(format!("secrets/{name}/AWS_REQUEST_PAYER"), format!("{payer}\n"));
        }
    }
    let secrets = agent.scratch().join("secrets");
    // Who is named by a Secret pays only if the Secret says so.
    let agent = agent.arg("--credentials-dir").arg(&secrets).env("AWS_REQUEST_PAYER", "requester");
    let entry = |id: &str| format!("id: {id}, weights: s3://{BUCKET}/{id}/, credentials: {id}");
    agent.write_list(&list(&["paid", "free", "odd"].map(entry).each_ref().map(String::as_str)));
    let run = agent.once(SOON).await;
    let told = said(&run);
    assert!(told.contains("2 of 3 entries are warm."), "{told}");
    assert!(told.contains("AWS_REQUEST_PAYER says neither requester nor nothing"), "{told}");
    assert_current(&agent, "paid", &[("w.bin", &weights)]);

    let paid = payers(&objects, "paid");
    for method in ["GET", "HEAD"] {
        assert!(paid.iter().any(|(seen, _)| seen == method), "{paid:?}");
    }
    assert!(paid.iter().all(|(_, payer)| payer.as_deref() == PAYS), "{paid:?}");
    let free = payers(&objects, "free");
    assert!(free.len() >= 3 && free.iter().all(|(_, payer)| payer.is_none()), "{free:?}");
    assert_eq!(payers(&objects, "odd"), []);

    // Without a Secret it's the environment's to say.
    let agent = agent.envs(s3.env()).env("AWS_ENDPOINT_URL", objects.url());
    agent.write_list(&list(&[&format!("id: own, weights: s3://{BUCKET}/free/")]));
    let before = free.len();
    let run = agent.once(SOON).await;
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    let own = payers(&objects, "free").split_off(before);
    assert!(!own.is_empty() && own.iter().all(|(_, payer)| payer.as_deref() == PAYS), "{own:?}");
}
