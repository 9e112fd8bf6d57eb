/**
 * Rankings: an answer's results, by document, and the changes of rank between two of them.
 *
 * Invariant: every document that was sent has one entry, whether it was ranked or not.
 */

/**
 * The ranking of an answer to a request for `documents`, as a map by document key.
 *
 * An entry is `{rank, score, logit, probability, meta}` for a result (of a calibrated model, else
 * without `probability`), `{error}` for a document that failed, or `{leftOut: true}` for one below
 * `top_n`.
 */
export function rankingOf(answer, documents) {
  const entries = new Map(documents.map(({ key }) => [key, { leftOut: true }]));
  answer.results.forEach((result, position) => {
    entries.set(documents[result.index].key, {
      rank: position + 1,
      score: result.relevance_score,
      logit: result.logit,
      probability: result.probability,
      meta: result.meta,
    });
  });
  for (const error of answer.errors) entries.set(documents[error.index].key, { error });
  return entries;
}

/** Documents as a ranking orders them: ranked ones, those left out, failed ones, new ones. */
export function inOrder(documents, ranking) {
  if (!ranking) return documents;
  const place = ({ key }) => {
    const entry = ranking.get(key);
    if (!entry) return Infinity;
    if (entry.error) return Number.MAX_SAFE_INTEGER;
    return entry.rank ?? Number.MAX_SAFE_INTEGER - 1;
  };
  // the difference of two infinities is no number; sorting keeps equal ones as they were
  return [...documents].sort((one, other) => {
    const [left, right] = [place(one), place(other)];
    return left === right ? 0 : left - right;
  });
}

/** The places that a document has moved up from one ranking to another, or null. */
export function movedUp(key, before, after) {
  const [was, is] = [before?.get(key)?.rank, after?.get(key)?.rank];
  return was === undefined || is === undefined ? null : was - is;
}

/** The least and the greatest logit of a ranking. */
export function logitRange(ranking) {
  let [least, greatest] = [Infinity, -Infinity];
  for (const { logit } of ranking.values()) {
    if (logit === undefined) continue;
    least = Math.min(least, logit);
    greatest = Math.max(greatest, logit);
  }
  return { least, greatest };
}
