"""How often a bundle answers right, and how often it answers otherwise than the PyTorch model it was made from.

    dataset = load_dataset("inspection", DatasetOptions(n=500))
    evaluation = evaluate(EvalOptions("inspector-int8", reference="inspector"), dataset)
    evaluation.scores.exact_match

Without a reference nothing here needs torch. `edgevlm.cli.eval` is the command around it.
"""
