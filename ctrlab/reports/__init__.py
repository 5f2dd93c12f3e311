"""What a comparison of models says: verdicts in words, the paper's claims, Pareto fronts. No torch, no Streamlit, no store."""
