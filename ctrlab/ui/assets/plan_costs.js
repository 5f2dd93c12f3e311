// Sums of the terms of plans/cost_terms.py for a choice of ranks: what plans/serving_forms.py and plans/cost_prediction.py compute.
// A cost is [parameters of tables, dense parameters, bytes of tables, dense bytes, MACs]. A rank of 0 is a dense layer.

const add = (a, b) => a.map((value, place) => value + b[place]);

function sumOf(costs) {
  const total = [0, 0, 0, 0, 0];
  for (const cost of costs) for (let place = 0; place < 5; place += 1) total[place] += cost[place];
  return total;
}

const parametersOf = (cost) => cost[0] + cost[1];
const bytesOf = (cost) => cost[2] + cost[3];

// Parameters that no precision changes.
const dense = (terms, number, macs) => [0, number, 0, terms.element_bytes * number, macs];

function rowBytes(precision, width) {
  const bits = precision === "int4" && width > 1 ? 4 : 8;
  return Math.ceil((width * bits) / 8);
}

function tableCost(terms, ids, width) {
  const float = terms.element_bytes * ids * width;
  const bytes = terms.precision === "float32" ? float : ids * rowBytes(terms.precision, width) + 2 * terms.element_bytes * width;
  return [ids * width, 0, bytes, 0, 0];
}

function linearCost(terms, inputs, width, positions = 1, biases = width) {
  const weights = inputs * width;
  const cost = dense(terms, weights + biases, positions * weights);
  const quantized = terms.precision !== "float32" && Math.min(inputs, width) > 1 && weights >= terms.least_quantized;
  if (quantized) cost[3] += terms.element_bytes * width - (terms.element_bytes - 1) * weights;
  return cost;
}

const activationCost = (terms, rank) => dense(terms, terms.prelu ? rank : 0, 0);

function factorsCost(terms, inputs, rank, width, positions = 1) {
  return sumOf([
    linearCost(terms, inputs, rank, positions), activationCost(terms, rank), linearCost(terms, rank, width, positions),
  ]);
}

function layerCost(terms, layer, rank) {
  if (rank) return factorsCost(terms, layer.inputs, rank, layer.width, layer.positions);
  return linearCost(terms, layer.inputs, layer.width, layer.positions, layer.parameters - layer.inputs * layer.width);
}

// A table in the trainable form.
function reducedTable(terms, layer, rank) {
  if (!terms.keeps_latents) return layer.reduced[rank - 1];
  const projection = rank * layer.width;
  return add(dense(terms, projection + layer.width, layer.positions * projection), tableCost(terms, layer.inputs, rank));
}

const rankOf = (ranks, table) => (table.layer < 0 ? 0 : ranks[table.layer]);
const numericParameters = (embedding, width) => (embedding.raw_values ? 0 : embedding.values * width);
const rawValues = (embedding) => (embedding.raw_values ? embedding.values : 0);

// The rank of a shared basis; 0 where no table is reduced.
const sharedRank = (embedding, ranks) => embedding.tables.reduce((found, table) => found || rankOf(ranks, table), 0);

function embeddingCost(terms, embedding, ranks) {
  const shared = terms.shared ? sharedRank(embedding, ranks) : 0;
  if (shared) {
    const numeric = numericParameters(embedding, shared);
    const restore = embedding.width * shared;
    const macs = numeric + (embedding.vectors + embedding.list_places) * restore;
    const tables = embedding.tables.map((table) => tableCost(terms, table.ids, shared));
    return add(dense(terms, numeric + restore, macs), sumOf(tables));
  }
  const numeric = numericParameters(embedding, embedding.width);
  const tables = embedding.tables.map((table) => {
    const rank = rankOf(ranks, table);
    return rank ? reducedTable(terms, terms.layers[table.layer], rank) : tableCost(terms, table.ids, table.width);
  });
  return add(dense(terms, numeric, numeric), sumOf(tables));
}

// A linear layer that reads all latents at once; its two factors are multiplied where that is no larger.
function sideBySide(terms, first, rank, latents) {
  const breakEven = (latents * first.width) / (latents + first.width);
  if (!rank || (terms.merges && rank >= breakEven)) return linearCost(terms, latents, first.width);
  return factorsCost(terms, latents, rank, first.width);
}

// A linear layer that reads every field's latents by themselves.
function fieldwise(terms, first, rank, latents, shared) {
  const width = rank || first.width;
  const own = shared
    ? linearCost(terms, shared, width, Math.floor(latents / shared), first.has_bias || rank ? width : 0)
    : dense(terms, (latents + first.positions) * width, latents * width);
  if (!rank) return own;
  return sumOf([own, activationCost(terms, rank), linearCost(terms, rank, first.width, first.positions)]);
}

function readerCost(terms, embedding, reader, ranks, latents, shared) {
  const [parameters, macs] = [reader.parameters, reader.macs].map(([base, slope]) => base + slope * latents);
  const first = reader.first.map((layer) => {
    const rank = rankOf(ranks, layer);
    if (!reader.by_field) return sideBySide(terms, layer, rank, latents);
    return fieldwise(terms, layer, rank, latents - rawValues(embedding), shared);
  });
  return add(dense(terms, parameters, macs), sumOf(first));
}

function sharedReader(terms, embedding, reader, ranks, latents, shared) {
  if (reader.rotation_invariant) {
    return [...reader.own.slice(0, 4), Math.floor((reader.own[4] * shared) / embedding.width)];
  }
  if (reader.foldable) return readerCost(terms, embedding, reader, ranks, latents, shared);
  const restore = embedding.width * shared;
  return add(reader.own, dense(terms, restore, embedding.vectors * restore));
}

// The cost of a folded embedding with its readers, and the numbers of the first layers that are counted in it.
function foldedEmbedding(terms, embedding, ranks) {
  const reduced = sharedRank(embedding, ranks) > 0;
  if (terms.shared && embedding.readers.length && reduced) {
    const shared = sharedRank(embedding, ranks);
    const numeric = numericParameters(embedding, shared);
    const tables = embedding.tables.map((table) => tableCost(terms, table.ids, shared));
    const latents = embedding.vectors * shared + rawValues(embedding);
    const readers = embedding.readers.map((reader) => sharedReader(terms, embedding, reader, ranks, latents, shared));
    const folded = embedding.readers.filter((reader) => !reader.rotation_invariant && reader.foldable);
    return { cost: sumOf([dense(terms, numeric, numeric), ...tables, ...readers]), read: firstLayers(folded) };
  }
  if (embedding.foldable && (terms.keeps_latents || !reduced)) {
    const widths = embedding.tables.map((table) => rankOf(ranks, table) || table.width);
    const tables = embedding.tables.map((table, place) => tableCost(terms, table.ids, widths[place]));
    const latents = widths.reduce((sum, width) => sum + width, 0) + embedding.values;
    const readers = embedding.readers.map((reader) => readerCost(terms, embedding, reader, ranks, latents, 0));
    return { cost: sumOf([...tables, ...readers]), read: firstLayers(embedding.readers) };
  }
  return { cost: add(embedding.own, embeddingCost(terms, embedding, ranks)), read: [] };
}

const firstLayers = (readers) => readers.flatMap((reader) => reader.first.map((layer) => layer.layer));

function linearLayers(terms, ranks, without) {
  return terms.layers.map((layer, number) =>
    layer.table || without.has(number) ? [0, 0, 0, 0, 0] : layerCost(terms, layer, ranks[number]));
}

function explicitCost(terms, ranks) {
  const embeddings = terms.embeddings.map((embedding) => embeddingCost(terms, embedding, ranks));
  return sumOf([terms.explicit_fixed, ...linearLayers(terms, ranks, new Set()), ...embeddings]);
}

function foldedCost(terms, ranks) {
  const embeddings = terms.embeddings.map((embedding) => foldedEmbedding(terms, embedding, ranks));
  const read = new Set(embeddings.flatMap((embedding) => embedding.read));
  return sumOf([terms.folded_fixed, ...linearLayers(terms, ranks, read), ...embeddings.map((embedding) => embedding.cost)]);
}

// Ranks by which the layers are factored, 0 for dense, from those that were chosen: none at or above break-even, and one for all
// tables of an embedding in a shared basis.
function effectiveRanks(terms, chosen) {
  const ranks = terms.layers.map((layer, number) => (chosen[number] < layer.break_even ? chosen[number] : 0));
  if (!terms.shared) return ranks;
  for (const embedding of terms.embeddings) {
    const numbers = embedding.tables.map((table) => table.layer).filter((number) => number >= 0);
    const rank = Math.max(0, ...numbers.map((number) => ranks[number]));
    for (const number of numbers) ranks[number] = rank < terms.layers[number].width ? rank : 0;
  }
  return ranks;
}

function interpolated(places, values, at) {
  if (at <= places[0]) return values[0];
  const above = places.findIndex((place) => place >= at);
  if (above < 0) return values[values.length - 1];
  const share = (at - places[above - 1]) / (places[above] - places[above - 1]);
  return values[above - 1] + share * (values[above] - values[above - 1]);
}

// Share of each compressible layer's variance that is lost; null where that is not predicted.
function varianceLost(terms, ranks) {
  if (!terms.variance) return null;
  return terms.layers.map((layer, number) => {
    const rank = ranks[number];
    if (layer.table && rank && !terms.keeps_latents) return null;
    if (!rank) return 0;
    const shares = layer.table && terms.shared ? terms.shared_variance[number] : terms.variance[number];
    return shares === null ? null : shares[rank - 1];
  });
}

function predictedLoss(terms, ranks, values) {
  return ranks.reduce((sum, rank, number) => {
    const layer = rank ? terms.sensitivity.layers[number] : null;
    return layer ? sum + interpolated(layer.ranks, layer[values], rank) : sum;
  }, 0);
}

// The prediction for ranks that were chosen, one a compressible layer; a layer's own width or more leaves it dense.
function predictPlan(terms, chosen) {
  const ranks = effectiveRanks(terms, chosen);
  const [explicit, folded] = [explicitCost(terms, ranks), foldedCost(terms, ranks)];
  const foldedIsCheaper = folded[4] < explicit[4] || (folded[4] === explicit[4] && parametersOf(folded) < parametersOf(explicit));
  const lost = varianceLost(terms, ranks);
  const known = (lost || []).filter((share) => share !== null);
  return {
    ranks,
    serving: foldedIsCheaper ? folded : explicit,
    explicit, folded,
    lost,
    lostTotal: known.length ? known.reduce((sum, share) => sum + share, 0) / known.length : 0,
    auc: terms.sensitivity ? terms.sensitivity.auc - predictedLoss(terms, ranks, "auc_losses") : null,
    logLoss: terms.sensitivity ? terms.sensitivity.log_loss + predictedLoss(terms, ranks, "log_loss_increases") : null,
  };
}
